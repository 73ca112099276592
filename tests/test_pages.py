"""The pages in a real browser: player, search and differences. Hostile text and 100,000 frames do no harm."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.audit.erase import erase, plan_text
from retold.formats.markdown import write as write_markdown
from retold.pages.assemble import embedded
from retold.pages.content import parts_of
from retold.pages.diff_page import diff_page
from retold.pages.rendering import TAGS, rendered
from retold.pages.run_page import RunFold, render, run_page
from retold.recorder.events import Event, encode
from retold.recorder.http.exchange import Place
from retold.recorder.log.log import EventLog
from retold.recorder.log.runs import RunInfo
from tests.browser import CHROMIUM, Browser, Tab
from tests.messages_server import Reply, http_error, text, thinking, tool_use
from tests.talks import recorded, talk

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

OWN = "document.title='owned'"
HOSTILE = f'</script><script>{OWN}</script></style><img src=x onerror="{OWN}"> \x1b[31m \u202egnp.exe'
WORD = "w" * 1_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def opened(browser: Browser, html: str, **options: Any) -> Tab:
    path = Path("page.html").absolute()
    path.write_text(html, "utf-8")
    return browser.open(path.as_uri(), **options)


def page_of(*replies: Reply, **options: Any) -> str:
    log, run = recorded(talk(*replies, **options))
    with log:
        return run_page(log, log.find(run))


def shown_texts(tab: Tab) -> list[str]:
    """Return the visible texts of the conversation."""
    found: list[str] = tab.run("[...document.querySelectorAll('article:not([hidden]) .said')].map(e => e.textContent)")
    return found


# The page of a run


@needs_browser
def test_the_player_replays_the_text_frame_by_frame(browser: Browser) -> None:
    """Home shows the beginning, each frame adds its piece, and End shows everything. The input of a tool appears as raw JSON."""
    replies = [
        Reply([text("one two three four"), tool_use("Read", {"path": "a.txt"}, pieces=6)], "tool_use"),
        Reply([text("Done.")]),
    ]
    tab = opened(browser, page_of(*replies, step_ns=50_000_000, results=["alpha"]))
    whole = shown_texts(tab)
    assert whole[2:] == ["one two three four", '{\n  "path": "a.txt"\n}', "alpha", "Done."]
    tab.press("Home")
    assert len(shown_texts(tab)) == 2  # the request and the prompt
    seen = []
    for _ in range(12):
        tab.press(".")
        seen.append(shown_texts(tab)[2:])
    assert [s for s in seen if len(s) == 1 and s != [""]][:3] == [["one two "], ["one two three fo"], ["one two three four"]]
    assert ["one two three four", '{"path'] in seen
    tab.press("End")
    assert shown_texts(tab) == whole
    assert tab.complaints() == []


@needs_browser
def test_play_runs_from_the_beginning_to_the_end(browser: Browser) -> None:
    """At 10x, a recording of two seconds takes a fifth of a second of the fake clock. Space pauses."""
    tab = opened(browser, page_of(Reply([text("word " * 100, pieces=10)]), step_ns=40_000_000))
    tab.run("window.clock = 0, performance.now = () => window.clock, null")
    moment = "document.querySelector('#now').textContent"
    assert tab.run(moment) == "2.24 s / 2.24 s"
    tab.press("+")
    tab.press("+")
    tab.press(" ")
    assert tab.run("document.querySelector('#play').textContent") == "Pause"
    tab.run("window.clock = 100")
    tab.wait(f"{moment} === '1.00 s / 2.24 s'")
    assert shown_texts(tab)[-1] == "word " * 44
    tab.press(" ")
    tab.run("window.clock = 200")
    assert tab.run("document.querySelector('#play').textContent") == "Play"
    assert tab.run("document.querySelector('#scrub').getAttribute('aria-valuetext')") == "1.00 s of 2.24 s"
    tab.press("-")
    tab.press(" ")
    tab.run("window.clock = 900")
    tab.wait(f"{moment} === '2.24 s / 2.24 s'")
    assert tab.run("document.querySelector('#play').textContent") == "Play"


@needs_browser
def test_search_moves_from_match_to_match(browser: Browser) -> None:
    tab = opened(browser, page_of(*[Reply([text(f"Number {n}, needle" if n % 20 == 7 else f"Number {n}")]) for n in range(60)]))
    tab.press("/")
    tab.type("NEEDLE")
    tab.wait("document.querySelector('#found').textContent === '1 of 3'")
    assert tab.run("document.querySelector('article.here .said').textContent") == "Number 7, needle"
    assert tab.run("document.querySelector('article.here mark.here').textContent") == "needle"
    tab.press("Enter")
    assert tab.run("document.querySelector('article.here .said').textContent") == "Number 27, needle"
    tab.type("x")
    tab.wait("document.querySelector('#found').textContent === 'nothing found'")


@needs_browser
def test_the_timeline_shows_requests_retries_errors_and_tools(browser: Browser) -> None:
    """Each bar of a lane has a text."""
    replies = [
        Reply([thinking("Hm."), tool_use("Read", {"path": "a"})], "tool_use", model="m"),
        Reply([text("Half of it")], error_event_after=4, model="m"),
        http_error(529),
    ]
    tab = opened(browser, page_of(*replies))
    lanes = tab.run("[...document.querySelectorAll('.lane')].map(e => e.title)")
    assert [re.sub(r"\d+ ms", "N ms", lane) for lane in lanes] == [
        "request 1, m, first token after N ms, 13 frames, tool_use after N ms",
        "tool Read, result after N ms",
        "request 2, m, first token after N ms, 5 frames, error event after N ms",
        "request 3, POST https://api.anthropic.com/v1/messages, first token after N ms, 0 frames, http error 529 after N ms",
    ]


@needs_browser
@pytest.mark.parametrize("kind", ["run", "diff"])
def test_hostile_text_in_a_page_does_no_harm(browser: Browser, kind: str) -> None:
    """No script runs and nothing is loaded. Reordering marks are visible, and a word of a megabyte is folded and wrapped."""
    one = talk(
        Reply([text(HOSTILE), tool_use(HOSTILE, {HOSTILE: HOSTILE})], "tool_use"),
        Reply([text(WORD, pieces=10**6)]),
        prompt=HOSTILE,
    )
    log, run = recorded(one, name=HOSTILE)
    _, other = recorded(talk(Reply([text("Calm."), text(HOSTILE + "!")]), prompt=HOSTILE), name="calm")
    with log:
        html = run_page(log, log.find(run)) if kind == "run" else diff_page(retold.compare(run, other, log=log))
    assert html.count("<script") == 2
    tab = opened(browser, html, width=390, height=844)
    tab.press("n")
    assert tab.complaints() == []
    assert [url.rpartition("/")[2] for url in tab.requested()] == ["page.html"]
    assert tab.run("document.title") != "owned"
    assert tab.run("document.querySelectorAll('img, iframe, object, main script').length") == 0
    assert tab.run("[...document.querySelectorAll('.escape')].map(e => e.textContent).join()").startswith("\\x1b,\\u202e")
    assert tab.run("document.body.innerText.length") < 200_000
    assert (
        tab.run("[...document.querySelectorAll('button')].filter(b => b.textContent === 'Show all 1,000,000 characters').length")
        == 1
    )
    assert tab.run("document.documentElement.scrollWidth") == 390


@pytest.mark.stress
@needs_browser
def test_a_page_can_show_100_000_frames(browser: Browser) -> None:
    """The document has only the visible part. The user can reach every frame, and the scrubber covers all of them."""
    html = render(_many(100_000), _info())
    assert len(html) < 4_000_000
    tab = opened(browser, html)
    assert tab.run("document.querySelectorAll('*').length") < 5_000
    assert "100,000" in tab.run("document.querySelector('.facts').textContent")
    tab.press("Home")
    tab.run("document.querySelector('.frames .list').scrollTop = 1e9")
    tab.wait("document.querySelector('.frames li[aria-posinset=\"100000\"]') !== null")
    assert tab.run("document.querySelectorAll('.frames li').length") < 200
    assert tab.run("(() => { const s = document.querySelector('#scrub'); s.value = 5000; s.dispatchEvent(new Event('input'));"
                   "return document.querySelector('.frames li.now').getAttribute('aria-posinset') })()") == "50000"  # fmt: skip
    assert tab.complaints() == []


def _info() -> RunInfo:
    return RunInfo("0123456789abcdef", "many", "live", "completed", 10**18, 10**18 + 10**10, 0, 0, 0, None)


def _many(count: int) -> dict[str, Any]:
    """Return the data of a page for a run with this many frames, 500 in each answer, without a log."""
    fold = RunFold(EventLog("unused.db"), _info())
    seq = exchange = 0

    def give(kind: str, payload: bytes | dict[str, Any], in_exchange: bool = True) -> None:
        nonlocal seq
        data = payload if isinstance(payload, bytes) else encode(payload)
        fold.event(Event("r", seq, seq * 100_000, 0, kind, "", "", exchange if in_exchange else seq, data, b"", b""))
        seq += 1

    def frame(**data: Any) -> None:
        give("frame", f"data: {json.dumps(data)}\n\n".encode())

    for answer in range(count // 500):
        exchange = seq
        give("exchange.started", {
            "method": "POST", "uri": "https://x/v1/messages", "headers": [], "call": answer, "attempt": 1, "variables": {},
            "stamped": "pull", "recorded_at": "",
            "body": json.dumps({"model": "m", "messages": [{"role": "user", "content": f"Question {answer}"}]}),
        })  # fmt: skip
        frame(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
        for word in range(498):
            frame(type="content_block_delta", index=0, delta={"type": "text_delta", "text": f"{word} "})
        frame(type="content_block_stop", index=0)
        said = "".join(f"{word} " for word in range(498))
        give("message", {"type": "assistant", "message": {"id": str(answer), "content": [{"type": "text", "text": said}]}})
        give("exchange.ended", {"ending": "complete", "status": 200, "model": "m", "stop_reason": "end_turn", "usage": None})
    return fold.data()


# Errors, rendering and navigation

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
MARKDOWN = "# Plan\n\n- **bold** [site](https://example.com) [bad](ftp://x) <b>x</b>\n\n```python\ndef f(): return 'a'\n```\n"
BAD = http_error(400, "invalid_request_error", "max_tokens: too large")


def texts(tab: Tab, selector: str) -> list[str]:
    found: list[str] = tab.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")
    return found


@needs_browser
def test_failed_calls_are_in_the_conversation_and_in_the_status(browser: Browser) -> None:
    """The status is amber, and each error comes after its request. The filter and the key `e` find errors."""
    tab = opened(browser, page_of(Reply([text("Fine.")]), BAD, BAD))
    assert texts(tab, "#status.warn") == ["completed, 2 of 3 calls failed"]
    line = "400 invalid_request_error: max_tokens: too large"
    assert texts(tab, "article.error .said") == [line, line]
    assert texts(tab, ".lane.bad .label") == [line, line]
    tab.press("e")
    tab.press("e")
    assert tab.run("document.querySelectorAll('article.error')[1].classList.contains('here')")
    tab.run("{ const s = document.querySelector('#kinds'); s.value = 'errors'; s.dispatchEvent(new Event('change')); }")
    tab.wait("document.querySelectorAll('article').length === 2")
    assert (texts(tab, "article .said"), len(texts(tab, ".lane"))) == ([line, line], 2)
    assert tab.complaints() == []


@needs_browser
def test_every_prompt_is_above_its_answer(browser: Browser) -> None:
    """Two overlapping requests do not mix: all messages of a request are together."""
    first, second = talk(Reply([text("Answer 1")]), prompt="Question 1"), talk(Reply([text("Answer 2")]), prompt="Question 2")
    log, run = recorded(
        [*first, *(replace(each, place=Place(call=2), started_ns=1, ended_ns=each.ended_ns + 1) for each in second)]
    )
    with log:
        tab = opened(browser, run_page(log, log.find(run)))
    assert texts(tab, "article.prompt .said, article.text .said") == ["Question 1", "Answer 1", "Question 2", "Answer 2"]


@needs_browser
def test_markdown_code_and_images_are_rendered(browser: Browser) -> None:
    """Links lead only to the web, markup of a model is text, an image appears in the page, and `Raw` shows the source."""
    prompt: Any = [
        {"type": "text", "text": "See"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/svg+xml", "data": PIXEL}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
    ]
    tab = opened(browser, page_of(Reply([text(MARKDOWN)]), prompt=prompt))
    assert texts(tab, "article.text h4, article.text li strong, article.text pre .k") == ["Plan", "bold", "def", "return"]
    assert tab.run("[...document.querySelectorAll('article.text a[target]')].map(e => e.href)") == ["https://example.com/"]
    assert "bad <b>x</b>" in tab.run("document.querySelector('article.text li').textContent")
    tab.wait("[...document.images].map(e => e.naturalWidth).join() === '1'")
    assert "[image image/svg+xml" in (asked := tab.run("document.querySelector('article.prompt .said').textContent"))
    assert "[image https://example.com/a.png]" in asked
    tab.run("document.querySelector('article.text [aria-pressed]').click()")
    assert texts(tab, "article.text .said") == [MARKDOWN]
    assert len(tab.requested()) == 2  # the page and its image
    assert tab.complaints() == []


@needs_browser
def test_headers_are_shown_on_demand(browser: Browser) -> None:
    """Each request has headers, also a request that continues a conversation."""
    tab = opened(browser, page_of(Reply([text("Hello")]), Reply([text("Again")])))
    assert texts(tab, "table.headers") == []
    tab.run("document.querySelectorAll('details').forEach(e => { e.open = true })")
    tab.wait("document.querySelectorAll('table.headers').length === 4")
    assert "content-typeapplication/json" in texts(tab, "table.headers tr")
    assert "content-typetext/event-stream; charset=utf-8" in texts(tab, "table.headers tr")


@needs_browser
def test_an_erased_text_is_replaced_by_its_erasure(browser: Browser) -> None:
    log, run = recorded(talk(Reply([text("Secret of Ada")]), prompt="Of Ada"))
    with log:
        erase(log, plan_text(log, "Ada"), why="a request", by="Bo")
        html = run_page(log, log.find(run))
        write_markdown(log, [log.find(run)], markdown := BytesIO())
    assert "Ada" not in html
    assert markdown.getvalue().count(b"*[erased]*") == 1
    tab = opened(browser, html)
    erased = texts(tab, "article.erased .said")
    assert len(erased) == 2
    assert re.fullmatch(r"\[erased on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, by Bo: a request\]", erased[0])


@needs_browser
def test_a_brush_enlarges_the_timeline(browser: Browser) -> None:
    """Dragging over the ruler enlarges that part. A bar leads to its message, and the message to its bar."""
    tab = opened(browser, page_of(*[Reply([text(f"Number {n}")]) for n in range(40)]))
    box = tab.run("JSON.stringify(document.querySelector('#ruler').getBoundingClientRect())")
    left, top, width = (json.loads(box)[side] for side in ("left", "top", "width"))
    total = tab.run("total")  # in microseconds, with the duration of the import
    for kind, at in (("mousePressed", 100_000), ("mouseMoved", 110_000), ("mouseReleased", 180_000)):
        where = {"x": left + at / total * width, "y": top + 9, "button": "left", "buttons": 1, "clickCount": 1}
        tab.call("Input.dispatchMouseEvent", type=kind, **where)
    assert texts(tab, "#ruler > span")[0] != "0 ms"
    assert 8 <= int(tab.run("document.querySelector('.lane').getAttribute('aria-setsize')")) <= 14
    tab.press("w")
    assert texts(tab, "#ruler > span")[0] == "0 ms"
    tab.run("document.querySelectorAll('.lane button')[3].click()")
    assert texts(tab, "article.here .said") == ["Number 3"]
    tab.run("document.querySelector('article.here .bar-of').click()")
    assert tab.run("document.querySelector('.lane.here').getAttribute('aria-posinset')") == "4"
    tab.press("?")
    assert tab.run("document.querySelector('dialog').open")
    assert tab.complaints() == []


@needs_browser
def test_a_link_opens_at_its_message_and_time(browser: Browser) -> None:
    """The message is in view although the page measures earlier messages late. The searched words are marked."""
    replies = [Reply([text("line\n" * (n % 7) + f"Number {n}")]) for n in range(75)]
    log, run = recorded(talk(*replies))
    with log:
        Path("links.html").write_text(run_page(log, log.find(run)), "utf-8")
        seq = next(m.seq for m in log.messages(run) if "Number 71" in str(m.data))
    url = Path("links.html").absolute().as_uri()
    tab = browser.open(f"{url}?q=number+71#seq-{seq}")
    tab.wait("[...CSS.highlights.get('hit')].join() === 'Number 71'")
    place = "[...CSS.highlights.get('hit')][0].getBoundingClientRect().top"
    tab.run("new Promise(done => { let n = 50; const f = () => (n-- ? requestAnimationFrame(f) : done()); f() })")
    assert 100 < tab.run(place) < 850
    tab = browser.open(f"{url}?t=0.1")
    assert tab.run("document.querySelector('#now').textContent").startswith("100 ms / ")
    assert tab.complaints() == []


def test_each_block_of_a_content_is_text_or_an_image() -> None:
    """A tool may answer with an image. A source that is not base64, or of a type that may contain a script, is only described."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    assert parts_of("Hi") == ("Hi", [])
    assert parts_of([{"type": "text", "text": "a"}, image]) == ("a", [("image/png", PIXEL)])
    hostile = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": '" onerror="x'}}
    assert parts_of([hostile])[1] == []
    document = {"type": "document", "title": "a.pdf", "source": {"media_type": "application/pdf", "data": "AAAA"}}
    assert parts_of([document, {"type": "tool_reference", "tool_name": "Read"}]) == (
        "\n[document a.pdf application/pdf 3 bytes]\n[tool Read]", [],
    )  # fmt: skip
    assert parts_of([{"type": "new", "x": 1}]) == ('{\n  "type": "new",\n  "x": 1\n}', [])


def test_rendering_creates_known_tags_only() -> None:
    """Hostile text never becomes a tag or an attribute. Nesting is limited."""

    def tags(nodes: list[Any]) -> Iterator[tuple[str, dict[str, str]]]:
        for node in nodes:
            if isinstance(node, list):
                yield node[0], node[1]
                yield from tags(node[2:])

    chance = random.Random(5)
    parts = [
        "*",
        "**",
        "`",
        "```py\n",
        "> ",
        "- ",
        "1. ",
        "# ",
        "[a](",
        ")",
        "javascript:x",
        "http://a.b",
        "<script>",
        "|a|b|\n|-|-|\n",
        "\n",
        "a ",
        "&lt;",
        "~~",
        "![i](",
        "\\",
    ]
    for _ in range(60):
        for tag, attributes in tags(rendered("".join(chance.choices(parts, k=60))) or []):
            assert tag in TAGS
            assert set(attributes) <= {"href", "title", "rel", "target", "class", "start"}
            assert re.match("https?://|mailto:|$", attributes.get("href", ""))
    assert rendered("plain text, two lines.\nThat is all") is None
    assert rendered("> " * 5000 + "deep") is not None
    assert rendered("*" * 30_000) is None


# The page of a difference


def lines(word: str) -> list[dict[str, Any]]:
    texts = [f"Line {n} says {word if n in (50, 90) else 'the same'} again" for n in range(100)]
    return [{"type": "assistant", "message": {"id": str(n), "content": said}} for n, said in enumerate(texts)]


@needs_browser
def test_the_page_of_a_difference_marks_words_and_folds_equal_items(browser: Browser) -> None:
    """`n` moves to the next difference. Equal items form one button until the user presses it."""
    tab = opened(browser, diff_page(retold.compare(lines("this"), lines("that"))))
    assert tab.run("document.querySelector('h1').textContent") == "2 differences: 2 changed; 98 items the same"
    assert tab.run("[...document.querySelectorAll('.fold')].map(e => e.textContent)") == [
        f"{count} items the same: show" for count in (48, 35, 7)
    ]
    tab.press("n")
    assert tab.run("[...document.querySelectorAll('.here del, .here ins')].map(e => e.textContent)") == ["this", "that"]
    tab.press("n")
    assert tab.run("document.querySelector('#place').textContent") == "difference 2 of 2"
    assert "Line 90" in tab.run("document.activeElement.textContent")
    rows = tab.run("document.querySelectorAll('.row').length")
    tab.run("document.querySelector('.fold').click()")
    tab.wait(f"document.querySelectorAll('.row').length > {rows}")
    tab.press("/")
    tab.type("line 40 ")
    tab.wait("document.querySelector('#found').textContent === '1 of 1'")
    assert tab.run("document.querySelector('.here mark').textContent") == "Line 40 "
    assert tab.complaints() == []


# Every page


@needs_browser
def test_every_control_has_a_name(browser: Browser) -> None:
    """A screen reader finds the names of controls and regions, and the status of a search."""
    log, run = recorded(talk(Reply([text("Hello"), tool_use("Read", {"a": 1})], "tool_use"), Reply([text("Done")])))
    with log:
        pages = run_page(log, log.find(run)), diff_page(retold.compare(run, lines("x"), log=log))
    controls = {"button", "combobox", "slider", "searchbox", "checkbox", "link", "region", "toolbar"}
    for html in pages:
        tab = opened(browser, html)
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        roles = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"]]
        named = {role for role, name in roles if name}
        assert [role for role, name in roles if role in controls and not name] == []
        assert {"button", "searchbox", "region", "toolbar", "heading"} <= named
        assert tab.run("document.documentElement.lang") == "en"


def test_data_in_a_page_cannot_end_its_block() -> None:
    """Embedded data round-trips. It contains no `<` and no character that UTF-8 cannot encode."""
    chance = random.Random(3)
    letters = [*"<>&/!-\\\"'sctyle\n", "\u2028", "\u202e", "\ud800", "😀", "\0"]
    for _ in range(200):
        value = {"".join(chance.choices(letters, k=5)): "".join(chance.choices(letters, k=30))}
        text = embedded(value)
        assert json.loads(text) == value
        assert not set("<>&\u2028") & set(text)
        text.encode()


def test_a_page_loads_nothing_and_allows_only_its_own_style_and_script() -> None:
    """The policy of the file allows these by their digests. The page contains no address to load from."""
    html = page_of(Reply([text("Hello")]))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    assert "default-src &#39;none&#39;" in policy
    assert "connect-src &#39;none&#39;" in policy
    assert "unsafe" not in policy
    assert re.findall(r"""(?:src|href)\s*=\s*["']""", html.partition('id="data"')[0]) == []
    assert " style=" not in html.partition("<script")[0]
