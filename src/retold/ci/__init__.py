"""Reports for CI services: annotations and summaries of GitHub, and JUnit's XML."""
