"""SHOWS: readers of the log that show, store or pass on messages. Imports `retold.recorder` only."""
