"""Answering for a log later: what was said, what it cost, whether it was changed, and removing what must go."""
