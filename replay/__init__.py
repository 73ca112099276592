"""RETELLS: recorded streams become live again. Imports `retold.recorder` only."""
