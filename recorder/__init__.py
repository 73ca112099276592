"""WRITES: record exchanges as events of an append-only log. Imports nothing of retold's other packages."""
