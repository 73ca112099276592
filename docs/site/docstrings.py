"""The extension of griffe that reads retold's docstrings: parts of them are Python, or lists of names in columns."""

from typing import Any

import griffe
from docs.reference import CONSTRUCTED, as_markdown


class Docstrings(griffe.Extension):
    """Turn each docstring into Markdown. Hide constructors that only retold calls."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change an object when it was read."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value, tables=True)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Change a class when its members were read."""
        if "__init__" in cls.members and cls.name not in CONSTRUCTED:
            cls.del_member("__init__")
