"""A form for each task type, made of its JSON Schema."""
