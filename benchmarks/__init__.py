"""Measure retold beside its peers in the same run: all with `python -m benchmarks`, or one with `python -m benchmarks.append`."""
