"""ComfyUI: the worker's own or one that runs already, and the workflows that it runs for tasks."""
