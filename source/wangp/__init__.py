"""What was prepared in Wan2GP's own interface becomes rows: settings files, queues, and outputs that say their own."""
