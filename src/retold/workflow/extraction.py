"""claude_extract: convert an answer to a given form. markdown-it parses the Markdown."""

import contextlib
import json
import re
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from ..recorder import strict_json
from ..recorder.errors import RunError
from .results import StepResult
from .step_types import ExtractionConfig

if TYPE_CHECKING:
    from markdown_it.token import Token

_LINE_END = re.compile(r"\r\n?|\n")
"""The line ends of Markdown. U+2028 and the like are not line ends, so that lines are counted as the parser counts them."""

_TAG = re.compile(r"<(/?)([A-Za-z][\w.:-]*)(?:\s[^<>]*)?>")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def extract(text: str, config: ExtractionConfig, done: StepResult) -> str:
    """Return the text of a step in the configured form. Raise RunError if the answer does not allow it."""
    for process in config.post_processing:
        text = _PROCESSES[process](text)
    metadata = _metadata(done) if config.include_metadata else None
    match config.format:
        case "json":
            return _as_json(json_in(text), metadata)
        case "structured":
            return _as_json(structure_of(text), metadata)
        case "summary":
            text = summary_of(text, config.max_summary_length)
        case _:
            text = text.strip()
    if metadata is None:
        return text
    lines = (f"{key}: {strict_json.dumps(value, ensure_ascii=True)}\n" for key, value in metadata.items())
    return f"---\n{''.join(lines)}---\n{text}"


def json_in(text: str) -> Any:
    """Return the JSON value of an answer.

    It is the whole answer, or its first code fence marked json, or its first code fence without a mark. Raise RunError if that
    is not JSON; NaN and Infinity are not.
    """
    with contextlib.suppress(ValueError, RecursionError):
        return _strict_json(text)
    fences = [token for token in _tokens(text) if token.type == "fence"]
    marks = [" ".join(token.info.split()[:1]).lower() for token in fences]
    found = next((fences[marks.index(mark)].content for mark in ("json", "") if mark in marks), text)
    try:
        return _strict_json(found)
    except (ValueError, RecursionError) as error:
        raise RunError(f"the answer holds no JSON ({error}); ask for it in the prompt, or choose another format") from error


def _strict_json(text: str) -> Any:
    return json.loads(text, parse_constant=_not_json)


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def structure_of(text: str) -> dict[str, Any]:
    """Return the structure of a Markdown text.

    It is `{sections: [{heading, level, text}], code_blocks: [{language, code}], lists: [[item, …]], links: [{text, url}],
    tables: [[[cell, …], …]]}`. The first row of a table is its header.
    """
    tokens = _tokens(text)
    lines = _LINE_END.split(text)
    sections: list[dict[str, Any]] = []
    # Only headings of the document itself begin a section, not those in a list or a quotation (level > 0).
    begins = [(t.map[0], t.map[1], int(t.tag[1]), tokens[n + 1].content) for n, t in enumerate(tokens)
              if t.type == "heading_open" and t.map and t.level == 0]  # fmt: skip
    first = begins[0][0] if begins else len(lines)
    if intro := "\n".join(lines[:first]).strip():
        sections.append({"heading": None, "level": 0, "text": intro})
    for number, (_, after, level, heading) in enumerate(begins):
        until = begins[number + 1][0] if number + 1 < len(begins) else len(lines)
        sections.append({"heading": heading, "level": level, "text": "\n".join(lines[after:until]).strip()})
    codes = [{"language": t.info.strip() or None, "code": t.content} for t in tokens if t.type in ("fence", "code_block")]
    return {
        "sections": sections, "code_blocks": codes, "lists": _lists(tokens), "links": _links(tokens), "tables": _tables(tokens),
    }  # fmt: skip


def summary_of(text: str, limit: int) -> str:
    """Return whole sentences from the beginning, up to `limit` characters. If the first sentence is longer, return its
    beginning.
    """
    words = " ".join(plain_text(text).split())
    if len(words) <= limit:
        return words
    kept = ""
    for sentence in _SENTENCE_END.split(words):
        longer = f"{kept} {sentence}".strip()
        if len(longer) > limit:
            break
        kept = longer
    return kept or words[: max(0, limit - 1)].rstrip() + "…"


def plain_text(text: str) -> str:
    """Return the text without Markdown marks and without HTML tags that come in pairs. Cells of a table row are separated by
    tabs.

    An unclosed tag is kept, because it may be a type parameter, as in `Vec<T>`.
    """
    return _plain(text, {name.lower() for slash, name in _TAG.findall(text) if slash})


def _plain(text: str, closed: Container[str]) -> str:
    pieces: list[str] = []
    in_row = False
    for token in _tokens(text):
        if token.type == "inline":
            piece = "".join(_plain_child(child, closed) for child in token.children or ())
            if in_row:
                pieces[-1] += f"{piece}\t"
            else:
                pieces.append(piece)
        elif token.type in ("fence", "code_block"):
            pieces.append(token.content.rstrip("\n"))
        elif token.type == "html_block":
            inner = _without_tags(token.content, closed)
            # Without its tags the block may be Markdown again, whose marks go too.
            pieces.append((_plain(inner, closed) if inner != token.content else inner).strip())
        elif token.type in ("tr_open", "tr_close"):
            # A row is one piece that its cells are added to: begin an empty one, or drop the tab after the last cell.
            in_row = token.type == "tr_open"
            pieces[-1:] = [*pieces[-1:], ""] if in_row else [pieces[-1].rstrip("\t")]
    return "\n".join(pieces)


def _plain_child(child: "Token", closed: Container[str]) -> str:
    if child.type == "html_inline":
        return _without_tags(child.content, closed)
    return child.content or ("\n" if "break" in child.type else "")


def _without_tags(html: str, closed: Container[str]) -> str:
    return _TAG.sub(lambda tag: "" if tag[2].lower() in closed else tag[0], html)


def _code_blocks(text: str) -> str:
    return "\n".join(token.content.rstrip("\n") for token in _tokens(text) if token.type in ("fence", "code_block"))


def _link_lines(text: str) -> str:
    return "\n".join(link["url"] for link in _links(_tokens(text)))


def _list_lines(text: str) -> str:
    return "\n".join(f"- {item}" for items in _lists(_tokens(text)) for item in items)


_PROCESSES = {"code_blocks": _code_blocks, "links": _link_lines, "lists": _list_lines, "plain_text": plain_text}


def _tokens(text: str) -> "list[Token]":
    from markdown_it import MarkdownIt

    return MarkdownIt().enable("table").parse(text)


def _tables(tokens: "list[Token]") -> list[list[list[str]]]:
    """Return the cells of each table, row by row."""
    found: list[list[list[str]]] = []
    for number, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append(tokens[number + 1].content)
    return found


def _lists(tokens: "list[Token]") -> list[list[str]]:
    """Return the items of each list. A nested list is a list of its own."""
    found: list[list[str]] = []
    open_lists: list[list[str]] = []
    for token in tokens:
        if token.type in ("bullet_list_open", "ordered_list_open"):
            open_lists.append([])
            found.append(open_lists[-1])
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            open_lists.pop()
        elif token.type == "inline" and open_lists:
            open_lists[-1].append(token.content)
    return found


def _links(tokens: "list[Token]") -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for token in tokens:
        url: str | None = None
        for child in token.children or ():
            if child.type == "link_open":
                url, words = str(child.attrs.get("href", "")), ""
            elif child.type == "link_close" and url is not None:
                found.append({"text": words, "url": url})
                url = None
            elif url is not None:
                words += child.content
    return found


def _metadata(done: StepResult) -> dict[str, Any]:
    names = ("name", "turns", "stop_reason", "usage", "cost_usd", "duration_ms")
    return {"step" if name == "name" else name: getattr(done, name) for name in names}


def _as_json(value: Any, metadata: dict[str, Any] | None) -> str:
    whole = value if metadata is None else {"metadata": metadata, "data": value}
    return strict_json.dumps(whole, indent=2)
