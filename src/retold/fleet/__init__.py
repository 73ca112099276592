"""Beyond one machine: pages of a log on a shelf, the shipper that puts them there, and mirrors that are pulled from it."""
