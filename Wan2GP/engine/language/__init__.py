"""Models that answer with words, and prompts that are written before a model reads them."""
