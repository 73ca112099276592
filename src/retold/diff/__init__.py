"""Differences between recordings for people and scripts: what to compare, and how to show it."""
