"""Assemble a page from its template, style, scripts and data, as one file that loads nothing.

Text from a model is hostile input. It enters a page in one place, as JSON in a data block that contains no `<`. Scripts insert
it as text, never as markup. The content security policy allows the page's own style and scripts, by their digests, images that
are in the page itself, and nothing else: no network, no other script, no form, no frame.
"""

import base64
import re
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from ..recorder import strict_json

PARTS = {"run": {"js": ["recording.js", "conversation.js", "timeline.js", "player.js", "run.js"]}}
"""The files of pages that have several of a kind."""

_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def page(name: str, *, title: str, data: dict[str, Any], plain: str = "", live: bool = False) -> str:
    """Return the page `name` (run, diff, runs) as HTML.

    `data` is the JSON that its script shows. `plain` is the content without scripts. `live` lets the page send requests to its
    server.
    """
    style, script = (_joined([f"base.{of}", *PARTS.get(name, {}).get(of, [f"{name}.{of}"])]) for of in ("css", "js"))
    allowed = policy(style, script, live)
    return str(
        _template().render(name=name, title=title, plain=plain, style=style, script=script, data=embedded(data), policy=allowed)
    )


def policy(style: str, script: str, live: bool) -> str:
    """Return the content security policy of a page."""
    server = "'self'" if live else "'none'"
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src data:",
            f"connect-src {server}",
            "base-uri 'none'",
            f"form-action {server}",
        ]
    )


def embedded(data: Any) -> str:
    """Return JSON for a data block of HTML, without characters that could end the block or that UTF-8 cannot encode."""
    text = strict_json.dumps(data, separators=(",", ":"))
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _joined(names: list[str]) -> str:
    return "".join(map(_static, names))


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


@cache
def _static(name: str) -> str:
    return files("retold.pages").joinpath("static", name).read_text("utf-8")


@cache
def _template() -> Any:
    import jinja2

    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_static("page.html"))
