"""One file per task type, or per family of types that differ only by model."""
