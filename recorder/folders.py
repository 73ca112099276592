"""The folders of a program, and texts in which the folders of another program take their places.

A recording holds absolute paths of the machine that made it. Replayed elsewhere, the folders of the recorded program (its
working directory, home and temporary folder) and those of the program that runs now are mapped to each other:

1. Only a whole path is mapped: `/home/a` is no part of `/home/ab`, `/home/a-b`, `/home/a.b` or `/x/home/a`.
2. The longest folder wins, because the working directory may be inside the home.
3. `/` and other very short folders are never mapped, and no folder is mapped to one of them.
4. A folder is found in each spelling of JSON and URLs, and is replaced in the same spelling.
5. Claude Code names the folder of a project after its path (`-home-me-project`); such a name is mapped as a part of a path.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from .strict_json import dumps

MIN_FOLDER_CHARS = 4
"""A shorter folder, such as `/` or `/w`, is part of too many texts."""

_LEFT = (
    rb"(?:(?<![\w.~)}\x80-\xff])"  # not inside of a longer path or word
    rb"|(?<=\\[nrtbf])|(?<=\\u00[0-7][0-9a-fA-F])"  # after an escape of JSON, whose last character is a letter or digit
    rb"|(?<=%[0-9A-Fa-f]{2})"  # after an escape of a URL
    rb"|(?<=\[m)|(?<=[\[;\d]\dm))"  # after a colour of a terminal
)
_RIGHT = rb"(?![\w\-@+~\x80-\xff]|\.\w|%(?!2[fF])[0-9a-fA-F]{2}|\\+u(?!00[0-7])[0-9a-fA-F]{4})"
_NO_WORD = re.compile(r"[^A-Za-z0-9]")
_UNSAFE = re.compile(r'[\x00-\x1f"\\\ud800-\udfff]')
"""Characters that JSON escapes, differently at each depth, and bytes that are not UTF-8. A folder with one is not mapped."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of a program, as absolute paths. An unknown one is empty."""

    cwd: str = ""
    home: str = ""
    tmp: str = ""

    def __bool__(self) -> bool:
        return bool(self.cwd or self.home or self.tmp)

    @classmethod
    def here(cls) -> "Folders":
        """Return the folders of this process, which its children inherit, if they can be mapped."""
        try:
            cwd = os.getcwd()
        except FileNotFoundError:
            cwd = ""
        named = (os.environ.get(name, "").rstrip("/") for name in ("HOME", "TMPDIR"))
        return cls(*(folder if is_mapped(folder) else "" for folder in (cwd, *named)))

    def as_dict(self) -> dict[str, str]:
        """Return the known folders by name."""
        return {name: folder for name, folder in asdict(self).items() if folder}

    @classmethod
    def of(cls, value: Any) -> "Folders":
        """Return the folders of a JSON object with their names; other values and names are ignored."""
        found = value if isinstance(value, Mapping) else {}
        return cls(*(str(found.get(name) or "") for name in ("cwd", "home", "tmp")))

    def show_in(self, *texts: bytes) -> bool:
        """Return whether one of the folders occurs in one of the texts."""
        spelled = [folder.encode() for folder in self.as_dict().values() if is_mapped(folder)]
        return any(folder in text for text in texts for folder in spelled)


UNKNOWN = Folders()


def is_mapped(folder: str) -> bool:
    """Return whether a folder can be mapped to another one."""
    return folder.startswith("/") and len(folder) >= MIN_FOLDER_CHARS and _UNSAFE.search(folder) is None


def pairs_between(old: Folders, new: Folders) -> dict[str, str]:
    """Return the folders of `old` with those of `new` that take their places."""
    pairs = {old.tmp: new.tmp, old.home: new.home, old.cwd: new.cwd}  # if two are equal, the last one counts
    return {one: other for one, other in pairs.items() if is_mapped(one) and is_mapped(other)}


class FolderMap:
    """Replaces folders in texts by others. False if it changes nothing."""

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self._forms: dict[bytes, bytes] = {}
        changes = any(old != new for old, new in pairs.items())
        # A folder that stays is a part of the pattern, too: it may be inside of a folder that changes.
        for old, new in pairs.items() if changes else ():
            for form, other in zip(_forms(old), _forms(new), strict=True):
                self._forms.setdefault(form, other)
        slugs = {_slug(old): _slug(new) for old, new in pairs.items()} if changes else {}
        self._slugs = {old: new for old, new in slugs.items() if old not in self._forms}
        folders, names = _longest_first(self._forms), _longest_first(self._slugs)
        self._pattern = re.compile(_LEFT + b"(?:" + folders + b")" + _RIGHT + rb"|(?:(?<=/)|\A)(?:" + names + rb")(?!\w)")
        self._to = self._forms | self._slugs

    def __repr__(self) -> str:
        return f"<FolderMap of {len(self._forms)} spellings>"

    def __bool__(self) -> bool:
        return bool(self._forms)

    def spans(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return the places of the folders in a text, in order: start, end and the folder that takes the place."""
        if not any(form in data for form in self._to):
            return []
        return [(*found.span(), self._to[found[0]]) for found in self._pattern.finditer(data)]

    def data(self, data: bytes) -> bytes:
        """Return a text with the other folders; the same object if there is nothing to replace."""
        parts, at = [], 0
        for start, end, other in self.spans(data):
            parts += [data[at:start], other]
            at = end
        return b"".join([*parts, data[at:]]) if parts else data

    def value(self, value: Any) -> Any:
        """Return a JSON value with the other folders in its texts."""
        if isinstance(value, str):
            raw = value.encode("utf-8", "surrogatepass")
            return value if (moved := self.data(raw)) is raw else moved.decode("utf-8", "surrogatepass")
        if isinstance(value, dict):
            return {key: self.value(item) for key, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, list) else value


def _longest_first(forms: Mapping[bytes, bytes]) -> bytes:
    return b"|".join(map(re.escape, sorted(forms, key=len, reverse=True))) or rb"(?!)"


def _slug(folder: str) -> bytes:
    return _NO_WORD.sub("-", folder).encode()


def _forms(folder: str) -> list[bytes]:
    """Return the spellings of a folder, in the same order for each folder."""
    escaped = [folder]
    for _ in range(3):  # JSON in JSON in JSON
        escaped.append(dumps(escaped[-1], ensure_ascii=True)[1:-1])
    slashed = [folder.replace("/", "\\" * depth + "/") for depth in (1, 3)]  # as PHP writes JSON
    texts = [*escaped, *slashed, quote(folder), quote(folder, safe="")]
    return [text.encode() for text in texts]
