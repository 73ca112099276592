"""Read YAML from outside with limits. All YAML files and values pass through `load`.

In YAML, a short text can represent a large value. The bounds are checked on the composed nodes, before any value is built:

1. Nesting: at most `MAX_DEPTH` levels, aliases included.
2. Aliases: written out, they may add at most `max_growth` to the document (`_weight` gives the unit). A merge key (`<<`)
   counts like any other use of an alias. An alias inside its own anchor is an error.
3. Scalars: a number, a time or `!!binary` whose text does not fit its type is a YAMLError with its position, not a
   ValueError from PyYAML's internals. A number has at most `MAX_DIGITS` characters, because Python refuses to print longer ones.

The check visits each written node once, so its cost is linear in the file. A file without anchors needs none.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

MAX_DEPTH = 200
"""Deeper nesting than any request has."""

MAX_GROWTH = 16_000_000
"""Weight that aliases may add to a document: about a million small values, or 16 MB of text. A subclass
may lower `Loader.max_growth`."""

MAX_DIGITS = 400
"""Characters of the longest number."""

_VALUE = 16
"""Weight of a value, in addition to its text."""

# An anchor: `&name`, not preceded by a word. The pattern begins with a plain character, because Python searches for one
# fifty times faster than it tries a lookbehind at each position.
_ANCHOR = re.compile(r"&(?<!\w&)\S")
_ANCHOR_BYTES = re.compile(rb"&(?<!\w&)\S")


def may_have_anchors(data: str | bytes) -> bool:
    """Return whether a text may contain an anchor. UTF-16 (null bytes) is not searched, and counts as having one."""
    if isinstance(data, str):
        return _ANCHOR.search(data) is not None
    return b"\0" in data or _ANCHOR_BYTES.search(data) is not None


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # the base is known at run time
    """PyYAML's safe loader with the bounds of this module; in C if PyYAML has it."""

    max_growth = MAX_GROWTH

    def __init__(self, data: str | bytes) -> None:
        super().__init__(data)
        self._depth = 0
        self._may_alias = may_have_anchors(data)

    def descend_resolver(self, parent: Any, index: Any) -> None:  # noqa: ARG002 - PyYAML's signature
        """Count a level. PyYAML calls this on its way down, before it recurses, so a deep document cannot overflow the stack."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _too_deep(parent)

    def ascend_resolver(self) -> None:
        """Leave a level."""
        self._depth -= 1

    def get_single_node(self) -> Any:
        """Return the document's root node, with its aliases checked. Raise YAMLError."""
        root = super().get_single_node()
        if root is not None and self._may_alias:
            check_aliases(root, self.max_growth)
        return root


def checked_scalar(tag: str, construct: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a constructor of PyYAML that raises ConstructorError, with the position, for a text that does not fit its type."""

    def checked(loader: Any, node: Any) -> Any:
        text = node.value
        try:
            if tag in ("int", "float") and len(text) > MAX_DIGITS:
                raise ValueError
            return construct(loader, node)
        except (ValueError, KeyError, AttributeError, TypeError, IndexError, OverflowError) as error:
            shown = _shown(text) if isinstance(text, str) else f"a {node.id}"
            raise yaml.constructor.ConstructorError(None, None, f"{shown} is no {tag}", node.start_mark) from error

    return checked


def _shown(text: str) -> str:
    return repr(text[:40]) + ("…" if len(text) > 40 else "")


for _tag in ("null", "bool", "int", "float", "binary", "timestamp"):
    _name = f"tag:yaml.org,2002:{_tag}"
    Loader.add_constructor(_name, checked_scalar(_tag, yaml.SafeLoader.yaml_constructors[_name]))


def _plain_text(loader: Any, _suffix: str, node: Any) -> str:
    """Return the text of a Python object that is a string (`multidict.istr`). Nothing is imported or called."""
    if isinstance(node, yaml.MappingNode):
        node = next((value for key, value in node.value if key.value == "args"), node)
    if isinstance(node, yaml.SequenceNode) and len(node.value) == 1:
        node = node.value[0]
    return str(loader.construct_scalar(node))


for _how in ("apply", "new"):
    for _module in ("multidict", "multidict._multidict", "multidict._multidict_py"):
        Loader.add_multi_constructor(f"tag:yaml.org,2002:python/object/{_how}:{_module}.istr", _plain_text)
for _name in ("str", "unicode"):
    Loader.add_multi_constructor(f"tag:yaml.org,2002:python/{_name}", _plain_text)


def load(data: str | bytes) -> Any:
    """Return the value of a YAML document; None for an empty one. Raise YAMLError, also for a document beyond the bounds."""
    return yaml.load(data, Loader=Loader)


def check_aliases(root: Any, max_growth: int = MAX_GROWTH) -> None:
    """Check a node with its aliases expanded. Raise YAMLError if it is recursive, too deep or too large."""
    written = 0
    done: dict[int, tuple[int, int]] = {}  # node -> (weight with aliases written out, levels)
    entered: set[int] = set()
    stack = [root]
    while stack:
        node = stack[-1]
        if id(node) in done:
            stack.pop()
            continue
        inner = _inner(node)
        if inner and id(node) not in entered:
            entered.add(id(node))
            waiting = [value for value in inner if id(value) not in done]
            if any(id(value) in entered for value in waiting):
                raise yaml.MarkedYAMLError(problem="an alias is used inside its own anchor", problem_mark=node.start_mark)
            stack += waiting
            continue
        stack.pop()
        own = _VALUE + (len(node.value) if isinstance(node.value, str) else 0)
        weight = own + sum(done[id(value)][0] for value in inner)
        levels = 1 + max((done[id(value)][1] for value in inner), default=0)
        done[id(node)] = weight, levels
        written += own
        if levels > MAX_DEPTH:
            raise _too_deep(node)
        if weight - written > max_growth:
            raise yaml.MarkedYAMLError(problem="its aliases stand for too much when written out", problem_mark=node.start_mark)


def _inner(node: Any) -> list[Any]:
    """Return the nodes in a mapping (keys and values) or a sequence; none for a scalar."""
    if isinstance(node, yaml.MappingNode):
        return [value for pair in node.value for value in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _too_deep(node: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=getattr(node, "start_mark", None))
