"""Every page in a real browser: wide and narrow, light and dark, without serious findings of axe-core.

`SCREENSHOTS=FOLDER` saves a picture of each page.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.events import Entry, encode
from retold.recorder.http.exchange import Exchange, Place
from retold.recorder.log.log import EventLog
from tests.browser import CHROMIUM, Browser, Tab
from tests.claude_code import CLIENTS
from tests.e2e import in_this_process, refused
from tests.messages_server import Reply, http_error, text, thinking, tool_use
from tests.talks import talk
from tests.test_pages import MARKDOWN, PIXEL
from tests.test_view import get, viewing

AXE = CLIENTS / "node_modules/axe-core/axe.min.js"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed")

SCRIPTS = "مرحبا بالعالم، هذا نص عربي.\n\n日本語のテキスト。\n\n👩‍👩‍👧 🎉"
OVERLOADED = http_error(529, "overloaded_error", "Overloaded")


def rich() -> list[Exchange]:
    """Record an image, thinking, code, a tool, several scripts, and failed calls."""
    prompt: Any = [
        {"type": "text", "text": "Look at **this**"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    ]
    replies = [
        Reply([thinking("Hm."), text(MARKDOWN, pieces=9), tool_use("Read", {"path": "a", "limit": 1})], "tool_use"),
        OVERLOADED,
        Reply([text(SCRIPTS)]),
        Reply([text("Half of it")], error_event_after=4),
    ]
    return talk(*replies, prompt=prompt, results=["alpha\n" * 20], step_ns=30_000_000)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    with EventLog(tmp_path_factory.mktemp("pages") / "log.db") as log:
        for day in (20, 22):
            dated = [replace(each, recorded_at=f"2026-11-{day}T10:00:00Z", cost_usd=0.01) for each in rich()]
            import_exchanges(log, dated, name="rich", source="a test")
        retried, answered = talk(OVERLOADED, Reply([text("Good.")], model="claude-other"), prompt="Say <b>good</b>")
        places = (Place(call=1), Place(call=1, attempt=2))
        healed = [replace(each, place=place) for each, place in zip((retried, answered), places, strict=True)]
        import_exchanges(log, healed, name="healed", source="a test")
        yield log


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


# The list of runs


def test_the_list_is_filtered_sorted_and_paged(log: EventLog) -> None:
    with viewing(log) as url:

        def names(query: str) -> list[str]:
            return [run["name"] for run in get(f"{url}/?{query}").data["runs"]]

        assert names("sort=name&order=asc") == ["healed", "rich", "rich"]
        assert names("sort=cost") == ["rich", "rich", "healed"]
        assert names("name=heal") == names("model=claude-other") == ["healed"]
        assert names("status=failed") == []
        assert len(names("error=1")) == 3
        assert names("until=2026-11-21") == names("since=2026-11-21&until=2026-11-23") == ["rich"]
        second = get(f"{url}/?n=2&page=2").data
        assert (len(second["runs"]), second["page"], second["more"]) == (1, 2, False)
        assert "is no time" in get(f"{url}/?since=never").data["list_problem"]


def test_the_list_has_the_facts_of_each_run(log: EventLog) -> None:
    with viewing(log) as url:
        healed, found = (get(f"{url}/?name={name}&n=1").data["runs"][0] for name in ("healed", "rich"))
    assert (healed["prompt"], healed["outcome"], healed["healed"]) == ("Say <b>good</b>", "completed", 1)
    assert (found["outcome"], found["failed"], found["calls"]) == ("completed, 2 of 4 calls failed", 2, 4)
    assert found["cost"] == pytest.approx(0.04)
    assert found["prompt"] == "Look at **this**"
    assert found["output"] > 0


@needs_browser
def test_a_hit_links_to_its_place_and_a_column_sorts(log: EventLog, browser: Browser) -> None:
    with viewing(log) as url:
        tab = browser.open(f"{url}/?q=alpha&n=2")
        link = tab.run("document.querySelector('#hits a').href")
        assert "?q=alpha#seq-" in link
        tab.call("Page.navigate", url=link)
        tab.wait("document.querySelector('article.tool_result.here') && [...CSS.highlights.get('hit')][0].toString() === 'alpha'")
        tab = browser.open(f"{url}/?q=alpha")
        tab.run("[...document.querySelectorAll('th a')].find(a => a.textContent === 'Cost').click()")
        tab.wait("document.querySelector('[aria-sort=descending]')?.textContent === 'Cost ↓'")
        assert "q=alpha" in tab.run("location.search")
        assert tab.run("document.querySelector('tbody .chip.warn').textContent") == "completed, 2 of 4 calls failed"
        assert tab.complaints() == []


# The page of the log


def test_stats_writes_a_page(log: EventLog) -> None:
    """The ending of the file chooses the format. A page does not replace a file by itself, and an empty span has no page."""
    db = ("--db", str(log.path))
    assert in_this_process("stats", "-o", "log.html", *db).returncode == 0
    html = Path("log.html").read_text()
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    assert [(line["day"], line["model"], line["errors"]) for line in data["lines"]][:2] == [
        ("2026-11-20", "claude-test", 2),
        ("2026-11-22", "claude-test", 2),
    ]
    assert sum(count for _, count in data["times"]["claude-test"]["took"]) == 4
    assert "connect-src &#39;none&#39;" in html
    assert in_this_process("stats", "--format", "html", *db).stdout == html
    assert "exists already" in refused(in_this_process("stats", "-o", "log.html", *db))
    assert "exclude each other" in refused(in_this_process("stats", "--csv", "-o", "other.html", *db))
    assert "stats.xyz" in refused(in_this_process("stats", "-o", "stats.xyz", *db))
    assert in_this_process("stats", "--format", "html", "--since", "2027-01-01", *db).returncode == 1


@needs_browser
def test_a_bar_lists_its_runs(log: EventLog, browser: Browser) -> None:
    with viewing(log) as url:
        tab = browser.open(f"{url}/log")
        charts = tab.run("[...document.querySelectorAll('svg.chart')].map(e => e.getAttribute('aria-label'))")
        assert charts == [
            *("Cost by day and model", "Tokens by day and model", "Errors and retries by day", "Calls by day and model"),
            *("Time to the first token", "Duration of answers"),
        ]
        assert tab.run("document.querySelector('svg a').getAttribute('aria-label')") == "2026-11-20, claude-test: $0.040"
        tab.run("location.hash = document.querySelector('svg a').getAttribute('href')")
        tab.wait("document.querySelector('#runs h2').textContent.startsWith('1 run: 2026-11-20, claude-test')")
        tab.run("location.hash = [...document.querySelectorAll('svg')].at(-1).querySelector('a').getAttribute('href')")
        tab.wait("document.querySelector('#runs h2').textContent.includes('answer after')")
        assert tab.run("document.querySelectorAll('#runs tbody tr').length") >= 1
        assert tab.complaints() == []


# Every page


def shoot(tab: Tab, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.screenshot(Path(folder) / f"{name}.png", whole=not name.startswith("long"))  # Chromium refuses very high pictures


@pytest.mark.stress
@needs_browser
@needs_axe
def test_no_page_has_a_serious_finding_of_axe(log: EventLog, browser: Browser) -> None:
    """Pages are wide and narrow, light and dark. No page is wider than its screen, and none logs an error."""
    with log.start(name="long", mode="live") as long:
        messages = (
            {"type": ("user", "assistant")[n % 2], "message": {"id": str(n), "content": f"Said *{n}*"}} for n in range(5000)
        )
        long.append(*(Entry("message", encode(each)) for each in messages))
    live = log.start(name="live", mode="live")
    live.note("message", {"type": "assistant", "message": {"id": "1", "content": "So far."}})
    pages = {
        "runs": "/?q=alpha&n=20", "rich": "/run/rich", "long": "/run/long", "live": "/run/live", "log": "/log",
        "difference": "/diff?a=rich&b=healed",
    }  # fmt: skip
    axe = AXE.read_text()
    shown = "document.styleSheets[0].insertRule('article, .row { content-visibility: visible !important }'), null"
    serious = "axe.run().then(r => r.violations.filter(v => /serious|critical/.test(v.impact)).map(v => v.id + v.nodes[0].html))"
    looks = [(1440, False), (390, True), *([(1440, True), (390, False)] if "SCREENSHOTS" in os.environ else [])]
    with viewing(log) as url:
        for name, path in pages.items():
            for width, dark in looks if name != "long" else looks[:1]:
                tab = browser.open(url + path, width=width, dark=dark)
                tab.run(shown)
                shoot(tab, f"{name}-{width}-{'dark' if dark else 'light'}")
                assert tab.run("document.documentElement.scrollWidth") == width, (name, width)
                tab.run(axe)
                assert tab.run(serious) == [], (name, width, dark)
                assert tab.complaints() == []
                browser.call("Target.closeTarget", {"targetId": tab.call("Target.getTargetInfo")["targetInfo"]["targetId"]})
    live.end()
