"""Secrets: find them in every spelling, also split over frames, and remove them."""
