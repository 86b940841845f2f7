"""What makes a model faster on one device: chosen by measuring on that device, and remembered on disk."""
