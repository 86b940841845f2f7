"""Workers under fire: they are killed, stopped, cut off and fed bad tasks, and their histories are checked afterwards.

`debug.py chaos` runs it (docs/reliability.md). It works on a database of its own; no row of others is touched.
"""
