"""How an output was made: noted in the file itself, and queued again from there."""
