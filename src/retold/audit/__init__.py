"""Account for a log: search its messages, sum up their cost, check that it is unchanged, and remove parts of it."""
