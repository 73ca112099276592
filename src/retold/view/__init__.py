"""`retold view`: serve the pages of runs and differences to a browser on this machine."""
