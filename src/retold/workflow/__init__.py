"""Workflows: YAML files with steps that talk to Claude, live or replayed from a cassette."""
