"""Render Markdown and code as trees that a page builds element by element, so that no markup of a model enters a page.

A tree is a list of nodes. A node is a text, or a list of a tag, its attributes and its nodes: `["a", {"href": "…"}, "text"]`.
The page accepts the tags in TAGS only.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

Node = str | list[Any]
"""A text, or `[tag, attributes, *nodes]`."""

TAGS = frozenset({
    "p", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "s", "a", "hr", "br", "table", "thead",
    "tbody", "tr", "th", "td", "span",
})  # fmt: skip
"""The tags of trees."""

MAX_CHARS = 20_000
"""A longer text is shown as it is. The page shows so many characters of a text at once."""

MAX_NODES = 20_000
"""A text with more nodes is shown as it is."""

_SYNTAX = re.compile(r"[*_`#>|~\[\\]|^\s*(?:[-+]|\d+[.)])\s|^ {4}|^(?:---|===)|\n\n|&#?\w+;", re.MULTILINE)
"""Every text that Markdown changes contains one of these."""

_LANGUAGES = {
    "bash": "bash", "c": "c", "c#": "csharp", "c++": "cpp", "console": "console", "cpp": "cpp", "csharp": "csharp", "css": "css",
    "diff": "diff", "dockerfile": "docker", "elixir": "elixir", "go": "go", "graphql": "graphql", "html": "html", "ini": "ini",
    "java": "java", "javascript": "javascript", "js": "javascript", "json": "json", "jsonc": "json", "jsx": "jsx",
    "kotlin": "kotlin", "kt": "kotlin", "lua": "lua", "makefile": "make", "php": "php", "powershell": "powershell",
    "py": "python", "python": "python", "r": "r", "rb": "ruby", "rs": "rust", "ruby": "ruby", "rust": "rust", "scala": "scala",
    "sh": "bash", "shell": "bash", "sql": "sql", "swift": "swift", "toml": "toml", "ts": "typescript", "tsx": "typescript",
    "typescript": "typescript",
    "xml": "xml", "yaml": "yaml", "yml": "yaml", "zsh": "bash",
}  # fmt: skip
"""Languages of code that is highlighted, and the lexers of pygments for them."""

_CLASSES = (
    ("Comment", "c"), ("Keyword", "k"), ("Literal.String", "s"), ("Literal.Number", "n"), ("Name.Function", "f"),
    ("Name.Class", "f"), ("Name.Tag", "k"), ("Name.Attribute", "f"), ("Name.Builtin", "b"), ("Name.Decorator", "b"),
    ("Generic.Deleted", "gd"), ("Generic.Inserted", "gi"), ("Generic.Heading", "k"), ("Operator.Word", "k"),
)  # fmt: skip
"""Token types of pygments, and the classes of their spans."""


def rendered(text: str) -> list[Node] | None:
    """Return Markdown as a tree, or None if the page shows the text as it is: it has no markup, or it is too long."""
    if len(text) > MAX_CHARS or not _SYNTAX.search(text):
        return None
    from markdown_it.tree import SyntaxTreeNode

    nodes = list(_nodes(SyntaxTreeNode(_parser().parse(text))))
    return None if _count(nodes) > MAX_NODES else nodes


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])


def _nodes(parent: Any) -> Iterator[Node]:
    """Yield the nodes of the children of a node of markdown-it."""
    for child in parent.children:
        yield from _node(child)


def _node(node: Any) -> Iterator[Node]:
    match node.type:
        case "text" | "html_block" | "html_inline":
            if node.content:
                yield node.content
        case "softbreak" | "hardbreak":
            yield ["br", {}]
        case "inline":
            yield from _nodes(node)
        case "paragraph" if node.hidden:
            yield from _nodes(node)
        case "heading":
            yield [f"h{min(int(node.tag[1:]) + 3, 6)}", {}, *_nodes(node)]
        case "code_inline":
            yield ["code", {}, node.content]
        case "fence" | "code_block":
            yield ["pre", {}, ["code", {}, *highlighted(node.content.rstrip("\n"), (node.info or "").strip())]]
        case "link":
            yield from _link(str(node.attrGet("href") or ""), list(_nodes(node)))
        case "image":  # a page loads nothing
            yield from _link(str(node.attrGet("src") or ""), [f"[image: {node.content}]"])
        case "ordered_list":
            start = node.attrGet("start")
            yield ["ol", {} if start is None else {"start": start}, *_nodes(node)]
        case _:
            if node.tag in TAGS:
                yield [node.tag, {}, *_nodes(node)]
            else:
                yield from _nodes(node)


def _link(address: str, nodes: list[Node]) -> Iterator[Node]:
    """Yield a link to a web address. Of any other link only its text is left."""
    if re.match(r"(?:https?://|mailto:)", address):
        yield ["a", {"href": address, "title": address, "rel": "noreferrer noopener", "target": "_blank"}, *nodes]
    else:
        yield from nodes


def highlighted(code: str, language: str) -> list[Node]:
    """Return code as texts and spans with the classes of its tokens."""
    name = language.split()[0].lower() if language else ""
    if name not in _LANGUAGES or len(code) > MAX_CHARS:
        return [code]
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(_LANGUAGES[name], stripnl=False)
    except ClassNotFound:
        return [code]
    nodes: list[Node] = []
    for kind, text in lexer.get_tokens(code):  # which end in a newline
        of = _class_of(str(kind))
        last = nodes[-1] if nodes else None
        if not of and isinstance(last, str):
            nodes[-1] = last + text
        elif of and isinstance(last, list) and last[1]["class"] == of:
            last[2] += text
        else:
            nodes.append(["span", {"class": of}, text] if of else text)
    if isinstance(nodes[-1], str):
        nodes[-1] = nodes[-1].removesuffix("\n")
    else:
        nodes[-1][2] = nodes[-1][2].removesuffix("\n")
    return nodes


@cache
def _class_of(kind: str) -> str:
    """Return the class of a token type, such as `Token.Literal.String.Double`, or an empty text."""
    name = kind.removeprefix("Token.") + "."
    return next((of for prefix, of in _CLASSES if name.startswith(prefix + ".")), "")


def _count(nodes: list[Node]) -> int:
    return sum(1 if isinstance(node, str) else 1 + _count(node[2:]) for node in nodes)
