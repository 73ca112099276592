"""Cassettes: their format, the forms of other tools, and the way between cassette and log."""
