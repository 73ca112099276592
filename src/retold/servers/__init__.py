"""Servers: record, replay, serve and proxy any program."""
