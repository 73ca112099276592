"""The texts and the images in the content of a message, as a page shows them."""

import re
from typing import Any

from ..recorder import strict_json
from ..recorder.messages import content_blocks
from ..recorder.strict_json import object_or_empty

SHOWN = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""The types of images that a page shows."""

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")

Image = tuple[str, str]
"""The type of an image and its bytes in base64."""


def parts_of(content: Any) -> tuple[str, list[Image]]:
    """Return the text of a content and its images.

    An image that the page cannot show, a document and any other block leave a line in brackets.
    """
    texts: list[str] = []
    images: list[Image] = []
    for block in content_blocks(content):
        kind, source = block.get("type"), object_or_empty(block.get("source"))
        if kind == "text":
            texts.append(str(block.get("text", "")))
        elif kind == "image" and (image := _image(source)) is not None:
            images.append(image)
        elif kind in ("image", "document"):
            texts.append(f"\n[{kind}{_described(source, block)}]")
        elif kind == "tool_reference":
            texts.append(f"[tool {block.get('tool_name')}]")
        else:
            texts.append(strict_json.dumps(block, indent=2))
    return "\n".join(texts), images


def _image(source: dict[str, Any]) -> Image | None:
    kind, data = source.get("media_type"), source.get("data")
    shown = kind in SHOWN and isinstance(data, str) and _BASE64.fullmatch(data) is not None
    return (str(kind), str(data)) if shown else None


def _described(source: dict[str, Any], block: dict[str, Any]) -> str:
    """Return the type, size, address and title of a source, after a space."""
    data = source.get("data")
    size = ""
    if isinstance(data, str):
        size = f"{len(data) if source.get('type') == 'text' else len(data) * 3 // 4:,} bytes"
    known = (block.get("title"), source.get("media_type"), source.get("url"), source.get("file_id"), size)
    return "".join(f" {each}" for each in known if each)
