"""HTML pages: one self-contained file for a run or a difference, also served by `retold view`."""
