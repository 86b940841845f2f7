"""Looks at an installation, and says what is well, what is not, and what to do about it. `debug.py doctor` shows it."""
