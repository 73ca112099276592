"""WRITES: what happens becomes events. Imports nothing of retold's other packages."""
