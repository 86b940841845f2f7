"""Masks of what clicks and boxes select, or of the people."""
