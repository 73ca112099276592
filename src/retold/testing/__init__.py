"""Tests: `use_cassette`, the session of a cassette, and the pytest plugin."""
