"""Show the differences between recordings to people and scripts."""
