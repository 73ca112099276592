"""Copies of logs on other machines: a shipper puts pages of a log on a shelf, and pullers copy them into mirrors."""
