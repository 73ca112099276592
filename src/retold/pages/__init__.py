"""Pages to look at: one self-contained HTML file for a run or a difference, and the same for `retold view`."""
