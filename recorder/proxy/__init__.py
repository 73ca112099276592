"""The recording proxy: HTTP/1.1 on both sides, and the relay between them."""
