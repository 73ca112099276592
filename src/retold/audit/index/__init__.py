"""The index of a log: the words of its messages for `search`, accounts for `stats` and facts of the runs for `ls`.

1. The index is a separate file, `log.db.index`. Indexing never makes a writer of the log wait.
2. All SQL on that file is in this room. Other modules ask an `Index` by values. The log itself is read through
   `recorder/log/sqlite/feed.py`.
3. An index is rebuilt from the events if it is missing, damaged, of another version or of another log, and after every
   erasure, so you can delete it without loss.
4. `opened` brings the index up to date: it takes the events of each run after a stored cursor, in transactions.
"""

from .opening import discard_file, opened, path_of, reset
from .reading import LAST, MARKS, Index, IndexedText, RunFacts, TextQuery, quoted
from .tables import FACETS

__all__ = [
    "FACETS", "LAST", "MARKS", "Index", "IndexedText", "RunFacts", "TextQuery", "discard_file", "opened", "path_of", "quoted",
    "reset",
]  # fmt: skip
