"""The pages are correct: links work, code compiles, commands and options exist, and tables match the code."""

import ast
import inspect
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
import yaml
from docs.reference import GENERATED, GROUPS

import retold
from retold.cli import make_app
from retold.formats import FORMATS
from retold.handlers import HANDLERS
from retold.recorder.cassette import format as cassette
from retold.recorder.cassette.format import _own
from retold.recorder.events import ENDINGS, Kind
from retold.recorder.http.exchange import Place
from retold.recorder.log.erasure import ERASED, PRUNED, REDACTED
from retold.recorder.secrets.redactor import SECRET_HEADERS
from retold.testing.record_modes import MODES
from retold.testing.use_cassette import use_cassette
from retold.workflow.key_texts import OF_OPTIONS, OF_STEP, OF_WORKFLOW
from retold.workflow.load import load_workflow
from retold.workflow.options import PRESETS
from retold.workflow.schema import ClaudeOptions
from retold.workflow.step_types import STEPS, BaseStep, Workflow
from tests.conftest import ROOT
from tests.documents import PAGES, Block, blocks_of, prose_of
from tests.test_architecture import MODULES, trees

DOCS = ROOT / "docs"
COMMANDS: dict[str, Any] = dict(getattr(typer.main.get_command(make_app()), "commands", {}))

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def every_block(*languages: str) -> list[Any]:
    """Return every block in these languages, as parameters of a test."""
    return [
        pytest.param(block, id=f"{name_of(page)}:{block.line}")
        for page in PAGES
        for block in blocks_of(page)
        if block.language in languages
    ]


def section(page: str, title: str) -> str:
    """Return the text below a heading of any level, up to the next heading of the same level or above."""
    text = (DOCS / page).read_text("utf-8")
    found = re.search(rf"^(#+) {re.escape(title)}$(.*?)(?=^#{{1,2}} |^\1 |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page} has no section {title!r}"
    return found[2]


def first_column(text: str) -> list[str]:
    """Return the code in the first column of the tables in a text."""
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in _CODE.findall(row)]


# Links


def anchors_of(page: Path) -> set[str]:
    """Return the headings of a page as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_have_targets(page: Path) -> None:
    """Every link to a file names an existing one, and every anchor is a heading of it."""
    for target in _LINK.findall(prose_of(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file), target


def test_every_page_is_reachable() -> None:
    """The README links each page of docs/."""
    linked = set(_LINK.findall((ROOT / "README.md").read_text("utf-8")))
    assert [page for page in PAGES if page.parent == DOCS and name_of(page) not in linked] == []


def test_every_page_is_in_the_site() -> None:
    """The navigation of mkdocs.yml names each page of docs/ once, because `make docs` refuses a page that it does not name."""

    def places(nav: Any) -> Iterator[str]:
        if isinstance(nav, str):
            yield nav
        else:
            for item in nav.values() if isinstance(nav, dict) else nav:
                yield from places(item)

    named = sorted(places(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))
    pages = [str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS)]
    elsewhere = ["architecture.md", "changes.md", "index.md", "recordings.md", "streaming-guide.md"]
    assert named == sorted([*pages, *elsewhere])


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CHANGELOG.md"])
def test_no_item_is_written_twice(page: str) -> None:
    """Git merges both files by union, which keeps the old and the new form of an edited item."""
    text = prose_of(ROOT / page)
    items = [" ".join(item.split()) for item in re.split(r"\n\n|\n(?=- |\d+\. )", text)]
    words = [(item, set(re.findall(r"[\w.`/-]+", item))) for item in items if len(item) > 60 and not item.startswith("#")]
    pairs = [(one, other) for n, one in enumerate(words) for other in words[n + 1 :]]
    assert [(a[0], b[0]) for a, b in pairs if len(a[1] & b[1]) > 0.6 * min(len(a[1]), len(b[1]))] == []


# Code


@pytest.mark.parametrize("block", every_block("python"))
def test_python_compiles(block: Block) -> None:
    """Users can paste the Python of a page, including `await` at the top level."""
    compile(block.text, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", every_block("yaml"))
def test_yaml_is_valid(block: Block, tmp_path: Path) -> None:
    """Users can paste the YAML. A whole workflow passes the validator."""
    value = yaml.safe_load(block.text)
    if isinstance(value, dict) and "workflow" in value:
        path = tmp_path / "workflow.yaml"
        path.write_text(block.text, "utf-8")
        assert load_workflow(path).workflow.name


def commands_of(page: Path) -> Iterator[list[str]]:
    """Return each call of retold in the shell blocks of a page."""
    lines = [line for block in blocks_of(page) if block.language == "sh" for line in block.text.splitlines()]
    for line in lines:
        call = re.search(r"(?:^|\| *|\$ )(?:[A-Z_]+=\S+ )*(retold .*)", line)
        if call is not None:
            yield shlex.split(re.split(r" \| | > | && ", call[1])[0], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_accept_their_documented_arguments(page: Path) -> None:
    """Every command on a page exists and accepts these arguments and options. A command in the text exists too."""
    for _, name, *arguments in commands_of(page):
        COMMANDS[name].make_context(name, list(arguments))
    for name, rest in re.findall(r"`retold ([a-z]+)([^`]*)`", prose_of(page)):
        known = {option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert set(re.findall(r"(?<=[ \[])--?[a-z][a-z-]*", rest.partition(" -- ")[0])) <= known, name


@pytest.mark.parametrize("page", GENERATED)
def test_generated_pages_are_up_to_date(page: str) -> None:
    """A script generates docs/cli.md and docs/api.md. Run it after a change of a help text or a docstring."""
    written = (DOCS / page).read_text("utf-8")
    assert GENERATED[page]() == written, f"docs/{page} is old; write it anew with: .venv/bin/python docs/reference.py"


def test_every_public_name_is_in_the_reference() -> None:
    """A group names only public names, and each has its section."""
    assert {name for names in GROUPS.values() for name in names} - set(retold.__all__) == set()
    sections = re.findall(r"^### (\w+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(sections) == retold.__all__


# Tables


@pytest.mark.parametrize("name", HANDLERS)
def test_handler_sections_name_their_options(name: str) -> None:
    """A handler's section names all of its options and no others."""
    text = section("handlers.md", name)
    named = set(first_column(text)) or {code for code in _CODE.findall(text) if code.startswith("show_")}
    assert named == set(HANDLERS[name].Options.model_fields)


def test_tables_of_workflow_keys_match_the_models() -> None:
    """Each table has the keys of its model."""
    keys = set(first_column(section("workflows.md", "Keys of `workflow`")))
    assert {key.partition(".")[0] for key in keys} == set(Workflow.model_fields)
    of_steps = section("workflows.md", "Keys of a step").partition("### ")[0]
    assert set(first_column(of_steps)) == {*BaseStep.model_fields, "type", "prompt"}
    assert set(first_column(section("workflows.md", "`claude_options`"))) == set(ClaudeOptions.model_fields)


@pytest.mark.parametrize(
    ("title", "texts"), [("Keys of `workflow`", OF_WORKFLOW), ("Keys of a step", OF_STEP), ("`claude_options`", OF_OPTIONS)]
)
def test_the_schema_has_the_texts_of_the_tables(title: str, texts: dict[str, str]) -> None:
    """An editor shows the meaning of each key and its default as in the tables, without links."""
    table: dict[str, str] = {}
    for line in section("workflows.md", title).partition("### ")[0].splitlines():
        if line.startswith("| `"):
            names, *default, meaning = (cell.strip() for cell in line.strip("|").split("|"))
            default = [f" (default: {each})" for each in default if each not in ("", "required")]
            text = "".join([re.sub(r"\[([^\]]*)\]\(.*?\)", r"\1", meaning).replace(" (below)", ""), *default])
            table |= dict.fromkeys(_CODE.findall(names), text)
    assert texts == table


@pytest.mark.parametrize("name", STEPS)
def test_every_step_type_has_a_paragraph(name: str) -> None:
    """It names the step type's keys and those of its configuration."""
    text = section("workflows.md", "Step types")
    start = text.index(f"**`{name}`**")
    paragraph = text[start : text.find("\n**`", start) % len(text)]
    for key, field in STEPS[name].model_fields.items():
        if key not in {*BaseStep.model_fields, "type", "prompt"}:
            assert key in paragraph
            for inner in getattr(field.annotation, "model_fields", {}):
                assert inner in paragraph, inner


def test_the_table_of_presets_matches_the_presets() -> None:
    """They have the same names."""
    rows = [
        line.strip("| ").split(" | ") for line in section("workflows.md", "Step types").splitlines() if line.startswith("| `")
    ]
    table = {row[0].strip("`"): row[1:] for row in rows if row[0].strip("`") in PRESETS}
    assert set(table) == set(PRESETS)
    for name, (turns, tools, model, retries, timeout) in table.items():
        preset = PRESETS[name]
        assert int(turns) == preset["max_turns"]
        assert tools == (" ".join(preset["allowed_tools"]) or "none")
        fallback = f", fallback {preset['fallback_model']}" if "fallback_model" in preset else ""
        assert model == f"{preset.get('model', 'sonnet')}{fallback}"
        assert retries == f"{preset['retry_config']['max_retries']} {preset['retry_config']['backoff_strategy']}"
        seconds = preset["timeout_ms"] // 1000
        assert timeout == (f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s")


def test_the_table_of_use_cassette_matches_its_signature() -> None:
    """It includes plain defaults."""
    named = set(first_column(section("testing.md", "In a `with` block"))) - set(MODES)
    parameters = inspect.signature(use_cassette.__init__).parameters
    assert named == set(parameters) - {"self", "path"}


def test_every_record_mode_has_a_row() -> None:
    """The table has no other rows."""
    assert set(MODES) <= set(first_column(section("testing.md", "In a `with` block")))


def test_pytest_options_are_documented() -> None:
    """Every option and setting on a page belongs to the plugin, and the table has all of them."""
    plugin = (ROOT / "src" / "retold" / "testing" / "pytest_plugin.py").read_text("utf-8")
    own = set(re.findall(r'"(--retold-[a-z-]+|retold_[a-z_]+)"', plugin)) - {"retold_cassette"}
    table = section("testing.md", "With pytest")
    assert {name for name in own if name not in table} == set()
    named = {name for page in PAGES for name in re.findall(r"--retold-[a-z]+(?:-[a-z]+)*", page.read_text("utf-8"))}
    assert named <= own


def test_the_cassette_page_names_every_key() -> None:
    """It names every written key, and every ending."""
    keys = set(first_column(section("cassettes.md", "Keys of `retold` in each interaction")))
    exchange = inspect.getsource(_own)
    written = {*re.findall(r'"(\w+)":', exchange), *re.findall(r'own\["(\w+)"\]', exchange)} - {"type", "message"}
    written |= set(re.findall(r'"(body_\w+)":', inspect.getsource(cassette)))  # the layout of the request's body
    assert keys == written
    text = section("cassettes.md", "Keys of `retold` in each interaction")
    assert [ending for ending in ENDINGS if f"`{ending}`" not in text] == []
    assert Place.__dataclass_fields__["variables"]


def test_the_security_page_names_redacted_headers() -> None:
    """It names every header that loses its value."""
    text = section("security.md", "Removed before anything is written")
    assert [name for name in SECRET_HEADERS if f"`{name}`" not in text] == []


def test_the_architecture_names_every_kind_of_event() -> None:
    """It names each kind that retold writes."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert [kind for kind in get_args(Kind) if f"`{kind}`" not in text] == []


def test_the_schema_page_matches_a_new_log() -> None:
    """It has every table and view with its columns, and every kind of event."""
    with retold.EventLog("log.db") as log:
        log.start(name="run", mode="live").end("completed")
    with closing(sqlite3.connect("log.db")) as connection:
        found = connection.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
        columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name, _ in found}
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    views = dict(re.findall(r"^\| `(\w+)` \| `([a-z_ ]+)` \|$", section("schema.md", "Views"), re.MULTILINE))
    assert {name: text.split() for name, text in views.items()} == {name: columns[name] for name, kind in found if kind == "view"}
    tables = section("schema.md", "Tables")
    for name in ("events", "runs", "ledger"):
        assert first_column(section("schema.md", f"`{name}`")) == columns[name]
    assert [name for name, kind in found if kind == "table" and f"`{name}`" not in tables] == []
    assert f"the version of the tables ({version})" in (DOCS / "schema.md").read_text("utf-8")
    kinds = set(first_column(section("schema.md", "Kinds of events")))
    assert kinds == {*get_args(Kind), ERASED, REDACTED, PRUNED}


def test_the_audit_page_names_every_export_format() -> None:
    """It names each format."""
    assert set(FORMATS) <= set(first_column(section("audit.md", "Export and import")))


# Messages


def literals() -> set[str]:
    """Return every text in the source: parts of f-strings separately, adjacent strings joined."""
    return {
        node.value
        for name in MODULES
        for node in ast.walk(trees()[name])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


MESSAGES = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)


def test_documented_messages_exist_in_the_program() -> None:
    """The fixed parts of each message on the page are in the source."""
    assert len(MESSAGES) > 30
    source = "\n".join(literals())
    wrong = [
        message for message in MESSAGES for part in message.split("…") if len(part.strip()) > 3 and part.strip() not in source
    ]
    assert wrong == []
