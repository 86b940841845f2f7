"""The engine behind `Wan2GP.wgp`: one module per pipeline family, and what they share."""
