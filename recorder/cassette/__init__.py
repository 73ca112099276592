"""Cassettes: their format, the forms of other tools, and the transfer between cassette and log."""
