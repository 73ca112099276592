"""claude_extract: an answer put into a form. Markdown is read by markdown-it."""

import json
import re
from typing import TYPE_CHECKING, Any

from ..recorder.errors import RunError
from .results import StepResult
from .step_types import ExtractionConfig

if TYPE_CHECKING:
    from markdown_it.token import Token

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def extract(text: str, config: ExtractionConfig, done: StepResult) -> str:
    """The step's text in the form that the config asks for. Raises RunError where the answer is not what it should be."""
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
    return (
        text if metadata is None else "---\n" + "".join(f"{k}: {json.dumps(v)}\n" for k, v in metadata.items()) + f"---\n{text}"
    )


def json_in(text: str) -> Any:
    """The JSON value of an answer: the whole of it, or what stands in its first code fence. Raises RunError."""
    fence = _FENCE.search(text)
    try:
        return json.loads(fence[1] if fence else text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"the answer holds no JSON ({error}); ask for it in the prompt, or choose another format") from error


def structure_of(text: str) -> dict[str, Any]:
    """`{sections: [{heading, level, text}], code_blocks: [{language, code}], lists: [[item, …]], links: [{text, url}]}`."""
    tokens = _tokens(text)
    lines = text.splitlines()
    sections: list[dict[str, Any]] = []
    begins = [(t.map[0], t.map[1], int(t.tag[1]), tokens[n + 1].content) for n, t in enumerate(tokens)
              if t.type == "heading_open" and t.map]  # fmt: skip
    first = begins[0][0] if begins else len(lines)
    if intro := "\n".join(lines[:first]).strip():
        sections.append({"heading": None, "level": 0, "text": intro})
    for number, (_, after, level, heading) in enumerate(begins):
        until = begins[number + 1][0] if number + 1 < len(begins) else len(lines)
        sections.append({"heading": heading, "level": level, "text": "\n".join(lines[after:until]).strip()})
    codes = [{"language": t.info.strip() or None, "code": t.content} for t in tokens if t.type in ("fence", "code_block")]
    return {"sections": sections, "code_blocks": codes, "lists": _lists(tokens), "links": _links(tokens)}


def summary_of(text: str, limit: int) -> str:
    """Whole sentences from the beginning, in up to `limit` characters; of a longer first sentence its beginning."""
    words = " ".join(plain_text(text).split())
    kept = ""
    for sentence in _SENTENCE_END.split(words):
        longer = f"{kept} {sentence}".strip()
        if len(longer) > limit:
            break
        kept = longer
    return kept or words[: max(0, limit - 1)].rstrip() + "…"


def plain_text(text: str) -> str:
    """The text without its Markdown marks."""
    pieces = []
    for token in _tokens(text):
        if token.type == "inline":
            inner = [child.content if child.content else "\n" if "break" in child.type else "" for child in token.children or ()]
            pieces.append("".join(inner))
        elif token.type in ("fence", "code_block"):
            pieces.append(token.content.rstrip("\n"))
    return "\n".join(pieces)


def _code_blocks(text: str) -> str:
    return "\n".join(token.content.rstrip("\n") for token in _tokens(text) if token.type in ("fence", "code_block"))


def _link_lines(text: str) -> str:
    return "\n".join(link["url"] for link in _links(_tokens(text)))


def _list_lines(text: str) -> str:
    return "\n".join(f"- {item}" for items in _lists(_tokens(text)) for item in items)


_PROCESSES = {"code_blocks": _code_blocks, "links": _link_lines, "lists": _list_lines, "plain_text": plain_text}


def _tokens(text: str) -> "list[Token]":
    from markdown_it import MarkdownIt

    return MarkdownIt().parse(text)


def _lists(tokens: "list[Token]") -> list[list[str]]:
    """The items of each list, those of an inner list as a list of their own."""
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
    return json.dumps(whole, ensure_ascii=False, indent=2)
