"""Workflows: YAML files whose steps talk to Claude, live or retold from a cassette."""
