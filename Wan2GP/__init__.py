"""The engine: models on Hugging Face diffusers behind the wgp API. Knows nothing of tasks, queues or databases."""
