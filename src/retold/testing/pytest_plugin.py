"""The pytest plugin: a cassette beside each test that is marked for one.

    @pytest.mark.retold
    def test_chat(retold_cassette): ...          # tests/cassettes/test_module/test_chat.yaml

The mark takes the arguments of `retold.use_cassette`; a path counts from the module's cassette folder. A failed test never
replaces a good cassette. At the end, a line counts replays, recordings, misses and unplayed recordings, and the saved money.
With `retold_vcr = true` tests marked for pytest-recording (`@pytest.mark.vcr`) run on retold (pytest_vcr.py).
"""

import inspect
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .pytest_misses import only_of_the_suite
from .pytest_outside import Outside, is_marked, lines
from .pytest_paths import NAMES, folder_of, note, note_user, one_test, path_of
from .pytest_session import PASSED, SINCE, STATS, Stats, began, begin, finish, log_path, saved, tell_worker
from .record_modes import MODES

if TYPE_CHECKING:
    from .used import UsedCassette

_known = pytest.StashKey[dict[Path, set[Path]]]()
_foreign = pytest.StashKey[set[Path]]()
_items = pytest.StashKey[list[pytest.Item]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options and ini settings of retold."""
    group = parser.getgroup("retold")
    group.addoption("--retold-mode", choices=MODES, default=None, help="Record mode for every cassette, also under CI.")
    group.addoption("--retold-timing", default=None, metavar="T", help="instant, original, or a factor such as 2x.")
    group.addoption("--retold-check-orphans", action="store_true", help="Fail if a cassette belongs to no test.")
    group.addoption("--retold-prune", action="store_true", help="Remove the recordings that no test played.")
    parser.addini("retold_mode", "Record mode where a test names none (default: none).", default=None)
    parser.addini("retold_timing", "Timing of replays (default: instant).", default=None)
    parser.addini("retold_max_age", "Age from which a cassette is expired, such as 90d.", default=None)
    parser.addini("retold_hosts", "Further hosts to record, as patterns.", type="linelist", default=[])
    parser.addini("retold_block_network", "Refuse requests to other hosts.", type="bool", default=False)
    parser.addini("retold_ignore", "Paths in request bodies that matching ignores, for every test.", type="linelist", default=[])
    parser.addini("retold_mask", "Patterns for texts that matching ignores, for every test.", type="linelist", default=[])
    parser.addini("retold_outside", "count: let API requests outside of cassettes pass in mode none too.", default="refuse")
    parser.addini("retold_log", "The log that recordings go to (default: .retold/log.db in the root folder).", default=None)
    parser.addini("retold_vcr", "Run tests marked with vcr, as for pytest-recording, on retold.", type="bool", default=False)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> None:
    """With `retold_vcr = true`, replace pytest-recording before a conftest can use it."""
    if early_config.getini("retold_vcr"):
        from . import pytest_vcr

        pytest_vcr.take_over(early_config, parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark and begin to count."""
    config.addinivalue_line("markers", "retold(path=None, **options): record or replay with retold.use_cassette.")
    config.stash[STATS] = Stats()
    config.stash[SINCE] = began(config)
    config.stash[_known] = {}
    config.stash[NAMES] = {}
    config.stash[_items] = []
    config.stash[_foreign] = set()
    from ..recorder.http.patching import watched

    outside = Outside(config)
    config.pluginmanager.register(outside, "retold-outside")
    stack = ExitStack()
    stack.enter_context(watched(outside.note))
    config.add_cleanup(stack.close)


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector: pytest.Collector) -> Generator[None, object, object]:
    """Note the names of tests, because a file system may not distinguish two of them."""
    made = yield
    note(collector.config, made)
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note which cassettes belong to a test before -k and -m deselect any."""
    for item in items:
        known = config.stash[_known].setdefault(folder_of(item), set())
        if item.get_closest_marker("vcr") is not None:
            config.stash[_foreign].add(folder_of(item))
        if is_marked(item):
            known.add(Path(os.path.normpath(path_of(item, item.get_closest_marker("retold")))))
            note_user(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test passed. An interrupt, an exit or a failure in setup leaves no such report.

    The report of a miss ends at the line of the suite that sent the request.
    """
    if call.excinfo is not None and not item.config.getoption("fulltrace"):
        only_of_the_suite(call.excinfo)
    report = yield
    if report.when == "call":
        # A test that was expected to fail, and did, counts as passed: its recording is the one that the test needs.
        item.stash[PASSED] = report.passed or (report.skipped and hasattr(report, "wasxfail"))
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Leave the cassette after the teardown of all fixtures, because a failure there counts too."""
    try:
        yield
    except BaseException:
        finish(item, passed=False)
        raise
    finish(item, passed=item.stash.get(PASSED, False))


@pytest.fixture
def retold_cassette(_retold_cassette: "UsedCassette | None") -> "UsedCassette":
    """The cassette of this test: `play_count`, `all_played`, `requests`, `unplayed`, `record_mode`, `path`."""
    assert _retold_cassette is not None
    return _retold_cassette


@pytest.fixture(autouse=True)
def _retold_cassette(request: pytest.FixtureRequest) -> Iterator["UsedCassette | None"]:
    item = request.node
    marker = item.get_closest_marker("retold")
    if marker is None and "retold_cassette" not in request.fixturenames:
        yield None
        return
    from ..recorder.cassette.kept import Kept
    from .record_modes import resolve
    from .use import Use
    from .use_cassette import use_cassette

    config = request.config
    options: dict[str, Any] = {
        "record_mode": config.getini("retold_mode"),
        "timing": config.getini("retold_timing") or "instant",
        "max_age": config.getini("retold_max_age"),
        "hosts": config.getini("retold_hosts"),
        "block_network": config.getini("retold_block_network"),
        "log": None,
    }
    options |= {} if marker is None else _arguments(marker)
    if config.getoption("--retold-timing"):
        options["timing"] = config.getoption("--retold-timing")
    options.pop("path", None)
    override = config.getoption("--retold-mode")
    asked = resolve(options.pop("record_mode"), override=override)
    own = use_cassette(**options).settings
    rules = own.rules.with_kept(Kept(tuple(config.getini("retold_ignore")), tuple(config.getini("retold_mask"))))
    path = path_of(item, marker)
    settings = replace(
        own, rules=rules, name=item.nodeid, test=one_test(item, path), recordings=log_path(config),
        since=config.stash[SINCE], is_overridden=own.is_overridden or bool(override),
    )  # fmt: skip
    using = Use(path, asked, settings, everywhere=True)
    item.config.stash[_items].append(item)
    yield begin(item, using)


def _arguments(marker: pytest.Mark) -> dict[str, Any]:
    """Return the mark's keyword arguments for `use_cassette`. Raise InputError for an unknown one."""
    from ..recorder.errors import InputError
    from ..recorder.words import nearest, sentence
    from .use_cassette import use_cassette

    known = set(inspect.signature(use_cassette).parameters) - {"name"}
    for key in marker.kwargs:
        if key not in known:
            raise InputError(sentence(f"unknown argument {key!r} of @pytest.mark.retold{nearest(key, sorted(known))}"))
    if len(marker.args) > 1:
        raise InputError(f"@pytest.mark.retold takes one path, and then arguments by name; it was given {marker.args[1]!r} too.")
    return dict(marker.kwargs)


# At the end


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Look for orphans. Send a worker's counts to the controller; elsewhere, let orphans change the exit code."""
    config = session.config
    for item in config.stash[_items]:  # an interrupted session runs no teardown
        finish(item, passed=False)
    stats = config.stash[STATS]
    if config.getoption("--retold-check-orphans"):
        stats.orphans = sorted({*stats.orphans, *_orphans(config)})
    output = getattr(config, "workeroutput", None)
    if output is not None:
        output["retold"] = asdict(stats)
        return
    if config.getoption("--retold-prune") or stats.refreshed:
        from .pytest_prune import prune

        prune(stats, None if config.getoption("--retold-prune") else stats.refreshed)
    if stats.orphans and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _orphans(config: pytest.Config) -> list[str]:
    """Return the cassettes that no test uses: of collected modules, and of modules that no longer exist.

    Modules that were not collected, or only in part (`test_a.py::test_one`), are left out.
    """
    parts = {Path(str(arg).partition("::")[0]).stem for arg in config.args if "::" in str(arg)}
    known = config.stash[_known]
    used = set().union(*known.values())
    folders = {folder.parent for folder in known}
    found = []
    for folder in (inner for outer in folders if outer.is_dir() for inner in outer.iterdir() if inner.is_dir()):
        module = folder.parent.parent / f"{folder.name}.py"
        gone = not module.exists() and any(fnmatch(module.name, pattern) for pattern in config.getini("python_files"))
        judged = folder in known and folder.name not in parts and folder not in config.stash[_foreign]
        if gone or judged:
            files = [path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml", ".json")]
            found += [str(path) for path in files if path not in used]
    return found


class _Controller:
    """With xdist: gives its workers the time of the session, and adds their counts."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        tell_worker(node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", {})
        if "retold" in output:
            node.config.stash[STATS].add(output["retold"])


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    """If xdist runs, add the counts of its workers."""
    if manager.get_name(plugin) == "dsession":
        manager.register(_Controller(), "retold-controller")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the counts of the session, and the saved tokens and money."""
    stats = config.stash[STATS]
    ran = any(terminalreporter.getreports(outcome) for outcome in ("passed", "failed"))
    if config.getoption("--retold-mode") and ran and not stats.marked:
        terminalreporter.section("retold")
        terminalreporter.line("--retold-mode did nothing: no test that ran is marked, so none used a cassette")
        terminalreporter.line("Mark a test with @pytest.mark.retold, or a whole module with: pytestmark = pytest.mark.retold")
    outside = lines(stats.live, stats.refused)
    if not (outside or stats.replayed or stats.recorded or stats.misses or stats.orphans or any(stats.unplayed.values())):
        return
    terminalreporter.section("retold")
    unplayed = sum(map(len, stats.unplayed.values()))
    line = f"{stats.replayed} replayed, {stats.recorded} recorded, {stats.misses} missed, {unplayed} recordings not played"
    terminalreporter.line(line)
    for path, left in sorted(stats.unplayed.items()):
        if left:
            outcome = f" ({stats.pruned[path]})" if path in stats.pruned else ""
            terminalreporter.line(f"  not played: {len(left)} in {_relative(path, config)}{outcome}")
    for text in stats.drift:
        terminalreporter.line(f"  drift: {text}")
    for path in stats.orphans:
        terminalreporter.line(f"  orphan: {_relative(path, config)} belongs to no test")
    if stats.replayed and stats.usage:
        terminalreporter.line(saved(stats))
    for text in outside:
        terminalreporter.line(text, yellow=True)


def _relative(path: str, config: pytest.Config) -> str:
    return str(Path(path).relative_to(config.rootpath)) if Path(path).is_relative_to(config.rootpath) else path
