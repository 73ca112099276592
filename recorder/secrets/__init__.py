"""Secrets: find them in every spelling, even split over frames, and remove them."""
