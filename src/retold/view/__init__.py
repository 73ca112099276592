"""`retold view`: the pages of runs and differences, served to a browser on this machine."""
