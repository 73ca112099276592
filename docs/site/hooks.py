"""mkdocs hooks of the site: pages of the repository that are not in docs/, links between all pages, and the reference of the API.

Every page is one Markdown file that GitHub shows too. The site adds nothing but navigation and search.
"""

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs.reference import api_page  # noqa: E402 - the path above makes it importable

ELSEWHERE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changes.md",
    "examples/STREAMING_GUIDE.md": "streaming-guide.md",
    "cassettes/README.md": "recordings.md",
}
"""Pages outside of docs/, and their places in the site."""

ASSETS = ("favicon.svg", "iframe-worker.js", "site.css")

_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]*)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^( *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
_log = get_plugin_logger("retold")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside of docs/, the files that pages link to, and the assets."""
    for asset in ASSETS:
        files.append(File.generated(config, f"assets/{asset}", abs_src_path=str(ROOT / "docs" / "site" / asset)))
    for path, place in ELSEWHERE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    for file in list(files.documentation_pages()):
        for _, target, _ in _LINK.findall(_FENCE.sub("", file.content_string)):
            path = _in_repository(file.src_uri, target)
            if (ROOT / path).is_file() and files.get_file_from_path(_in_site(path)) is None:
                files.append(File.generated(config, _in_site(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page with the links of the site; the reference of the API as directives of mkdocstrings."""
    del config
    if page.file.src_uri == "api.md":
        markdown = api_page()

    def link(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        if not target or "://" in target:
            return match[0]
        place = _in_site(_in_repository(page.file.src_uri, target))
        if files.get_file_from_path(place) is None:
            _log.warning(f"{page.file.src_uri} links to {target}, which is not in the site")
        return f"{before}{posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{after}"

    parts = _FENCE.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(link, part) for number, part in enumerate(parts))


def _in_repository(page: str, target: str) -> str:
    """Return the path in the repository that a link of a page means; `page` is a place in the site."""
    path = next((path for path, place in ELSEWHERE.items() if place == page), f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def _in_site(path: str) -> str:
    """Return the place in the site of a file of the repository."""
    return ELSEWHERE.get(path, path.removeprefix("docs/"))
