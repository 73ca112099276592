"""Experiments: decide by recordings. Fork a run at a point, and try models on it side by side."""
