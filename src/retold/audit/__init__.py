"""Answering for a log later: its messages, their cost, whether it was changed, and removing parts of it."""
