"""The tiny Wan models: their data, their judge, their training."""
