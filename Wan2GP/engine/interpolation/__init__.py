"""Frames between frames: RIFE, optical flow, and the `draft` model that is made of them."""
