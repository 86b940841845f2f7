"""The GPU half: one thread owns the accelerator and keeps the model warm. No database in here."""
