"""Matching: find the recorded exchange that answers a request."""
