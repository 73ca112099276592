"""Timing: play recorded exchanges at their pace."""
