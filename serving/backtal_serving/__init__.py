"""Serving: Triton's launcher and supervisor, its backends, and the models' code."""
