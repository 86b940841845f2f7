"""Qwen-Image, Edit and Edit-Plus, by a denoise loop of our own."""
