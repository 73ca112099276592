"""A judged run as Markdown and as a page."""

from ..comparing.markdown import fenced, plain
from ..pages.diff_page import page_of
from .noise import Judgement, lines_of, place_of

SIGNS = {"missing": "- ", "added": "+ "}


def as_markdown(found: Judgement, *, limit: int | None) -> str:
    """Return a judged run as GitHub-flavoured Markdown, with at most `limit` regressions."""
    parts = [f"### {plain(found.verdict)}", f"Run: {plain(found.comparison.b.title)}"]
    for deviation in found.regressions[:limit]:
        said, *content = lines_of(deviation)
        lines = [said, *(SIGNS.get(deviation.kind, "  ") + line for line in content)]
        parts.append(f"**{plain(place_of(deviation))}**\n\n{fenced(lines)}")
    if limit is not None and len(found.regressions) > limit:
        parts.append(f"… and {len(found.regressions) - limit:,} more.")
    if found.not_compared:
        parts.append(f"Not compared, because only some of the runs have it: {', '.join(found.not_compared)}.")
    return "\n\n".join(parts)


def as_page(found: Judgement) -> str:
    """Return a judged run as one HTML file: beside the first baseline run, with the noise marked as ignored."""
    first = None if not found.regressions else place_of(found.regressions[0])
    data = {"same": found.same, "summary": found.verdict, "first": first}
    return page_of(found.comparison, data, plain=found.as_text())
