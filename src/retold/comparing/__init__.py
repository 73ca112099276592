"""Compare two recordings, and write the differences as text, Markdown or JSON."""
