"""`debug.py watch`: `scene.py` what there is to see, `drawing.py` how it looks, `live.py` again and again."""
