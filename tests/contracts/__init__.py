"""Tests that every implementation of an interface passes, written so that other authors can run them on theirs."""
