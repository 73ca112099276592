"""Retell recorded streams as live ones. This package imports `retold.recorder` only."""
