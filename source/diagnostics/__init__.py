"""What is known of tasks, for people and for programs. `debug.py` shows it."""
