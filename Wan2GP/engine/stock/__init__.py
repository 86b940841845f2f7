"""Families that a stock pipeline of diffusers runs, behind the same seam as our own."""
