"""Whole servers under load: what `python -m benchmarks install`, `compare` and `ablate` are made of."""
