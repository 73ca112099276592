"""The parts of a written test, and the file that they make."""

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import indent, wrap

from .draft import Draft
from .literals import MARGIN, WIDTH


@dataclass(frozen=True)
class Parts:
    """The parts of a test.

    summary    the first line of the docstring
    note       the text of the docstring; command is the shell command that follows it
    imports    lines of import
    constants  statements and functions of the module, before the test
    body       statements of the test
    expected   its last statements
    arguments  the fixtures of the test
    marked     whether the test has the mark of retold
    """

    summary: str
    note: str
    command: str
    imports: frozenset[str]
    constants: tuple[str, ...]
    body: tuple[str, ...]
    expected: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    marked: bool = False


def merged(one: Parts, other: Parts) -> Parts:
    """Return the parts of one test that does both. The expectations of both are those of their whole recording."""
    return Parts(
        one.summary, one.note, one.command, one.imports | other.imports, one.constants + other.constants,
        (*one.body, "", *other.body), one.expected, one.arguments, one.marked,
    )  # fmt: skip


def file_text(draft: Draft, parts: Parts) -> str:
    """Return the text of the test's file."""
    note = f"Written by `retold pin` from {draft.title}. {parts.note}"
    lines = [*_wrapped(f'"""{parts.summary}.'), "", *_wrapped(note), "", f"{MARGIN}{parts.command}", '"""']
    blocks = ["\n".join(lines), _imports(parts)]
    simple = [each for each in parts.constants if not each.startswith(("@", "def ", "async def ", "class "))]
    blocks += ["\n".join(simple)] if simple else []
    functions = ["\n" + each for each in parts.constants if each not in simple]
    mark = [f"@pytest.mark.retold  # {draft.cassette.relative_to(draft.test.parent)}"] if parts.marked else []
    test = [*mark, f"def {draft.name}({', '.join(parts.arguments)}):", *(indent(each, MARGIN) for each in _body(parts))]
    text = "\n\n".join([*blocks, *functions, "\n" + "\n".join(test)]) + "\n"
    ast.parse(text)
    return text


def _body(parts: Parts) -> Iterable[str]:
    yield from parts.body
    if parts.expected:
        yield ""
        yield from parts.expected


def _wrapped(text: str) -> list[str]:
    return wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


_STANDARD = frozenset({"asyncio", "json", "os", "pathlib", "re", "subprocess", "sys"})


def _imports(parts: Parts) -> str:
    """Return the imports in the groups and the order of isort."""
    text = "\n".join([*parts.constants, *parts.body, *parts.expected])
    found = set(parts.imports) | ({"import retold"} if "retold." in text.replace(".retold", "") else set())
    found |= {"import pytest"} if parts.marked or "pytest." in text else set()
    groups: Sequence[list[str]] = [[], []]
    for line in found:
        groups[line.split()[1].partition(".")[0] not in _STANDARD].append(line)
    return "\n\n".join("\n".join(sorted(group, key=lambda line: (line.startswith("from"), line))) for group in groups if group)
