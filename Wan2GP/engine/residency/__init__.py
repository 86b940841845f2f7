"""What stays in memory between runs: models, the parts that they share, embeddings and latents."""
