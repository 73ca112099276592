"""Measures retold beside its peers, in the same run: `python -m benchmarks`, or one alone: `python -m benchmarks.append`."""
