"""`diff` ignores the same varying parts of requests as matching: those that Claude Code changes, kept rules, and folders."""

import json
from pathlib import Path
from typing import Any

import pytest

from retold.comparing.compare import Comparison
from retold.comparing.sources import compare
from retold.formats.imports import import_files
from retold.recorder.cassette.format import write_cassette
from retold.recorder.cassette.kept import NOTHING_KEPT, Kept
from retold.recorder.folders import Folders
from retold.recorder.http.exchange import Exchange, Request
from retold.recorder.log.log import EventLog
from tests.exchanges import JSON, URL, answer
from tests.test_profiles import CLAUDE_CODE, DIFFERENCES, asked

ONE, TWO = Folders("/tmp/one", "/home/ann"), Folders("/srv/two", "/root/b")


def writing(body: dict[str, Any], cwd: str, *, headers: Any = JSON, folders: Folders = Folders()) -> Exchange:  # noqa: B008
    """Return an exchange with an answer that writes a file into a folder."""
    use = {"type": "tool_use", "id": "toolu_9", "name": "Write", "input": {"file_path": f"{cwd}/note.txt"}}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [use], "stop_reason": "tool_use"}
    response = answer(json.dumps(message).encode(), headers=JSON)
    return Exchange(Request("POST", URL, headers, json.dumps(body).encode(), folders), response, ended_ns=10**6)


def compared(
    *sides: Exchange | list[Exchange], kept: tuple[Kept, Kept] = (NOTHING_KEPT, NOTHING_KEPT), imported: bool = False
) -> Comparison:
    for name, side, rules in zip("ab", sides, kept, strict=True):
        write_cassette(f"{name}.yaml", side if isinstance(side, list) else [side], kept=rules)
    if not imported:
        return compare("a.yaml", "b.yaml")
    with EventLog("log.db") as log:
        runs = [made.run for made in import_files(log, [Path("a.yaml"), Path("b.yaml")])]
        return compare(*runs, log=log)


@pytest.mark.parametrize("imported", [False, True])
def test_another_folder_home_date_or_machine_is_not_a_difference(imported: bool) -> None:
    """This applies to requests of Claude Code, and to the path that a tool gets."""
    there: dict[str, Any] = {
        "cwd": "/root/work",
        "home": "/root",
        "date": "2027-01-31",
        "machine": "Darwin 27.1.0",
        "version": "2.1.330.cd5",
    }
    sides = [writing(asked(), "/home/ann/work", headers=CLAUDE_CODE), writing(asked(**there), "/root/work", headers=CLAUDE_CODE)]
    found = compared(*sides, imported=imported)
    assert found.same, found.differences


@pytest.mark.parametrize("name", DIFFERENCES)
def test_any_other_change_is_a_difference(name: str) -> None:
    sides = [writing(body, "/home/ann/work", headers=CLAUDE_CODE) for body in (asked(), DIFFERENCES[name])]
    assert not compared(*sides).same


def talk(added: str = "", **later: Any) -> list[Exchange]:
    """Return two requests of one conversation.

    The second one has `later` in its first prompt, and `added` at the end of another.
    """
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_9", "name": "Write", "input": {"file_path": "n"}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_9", "content": "done"}]}
    first, second = asked(), asked(**later)
    second["messages"][-1]["content"][0]["text"] += added
    second["messages"] += [use, result]
    return [writing(body, "/home/ann/work", headers=CLAUDE_CODE) for body in (first, second)]


@pytest.mark.parametrize(
    ("later", "differing"),
    [({}, []), ({"commits": "0f0f0f0 two\n"}, []), ({"date": "2027-01-31"}, []), ({"added": "Stop."}, [("added", "prompt")])],
)
def test_an_earlier_prompt_is_edited_if_other_parts_differ(later: dict[str, str], differing: list[tuple[str, str]]) -> None:
    """A fork of a session of Claude Code has the recorded git status before its point, and a new one from there on."""
    found = compared(talk(), talk(**later))
    assert [(each.kind, each.what) for each in found.differences] == differing


def work(folder: str, text: str = "Go on.") -> dict[str, Any]:
    return {"model": "m", "system": f"You work in {folder}.", "messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize("imported", [False, True])
def test_recorded_folders_are_not_differences(imported: bool) -> None:
    sides = [writing(work(each.cwd), each.cwd, folders=each) for each in (ONE, TWO)]
    assert compared(*sides, imported=imported).same
    sides[1] = writing(work("/srv/other"), TWO.cwd, folders=TWO)
    assert [difference.what for difference in compared(*sides).differences] == ["request"]


def test_folders_count_if_only_one_side_has_them() -> None:
    """Two recordings without folders in the same folder are equal."""
    sides = [writing(work(ONE.cwd), ONE.cwd), writing(work(ONE.cwd), ONE.cwd, folders=ONE)]
    assert compared(*sides).same


KEPT = Kept(("messages[0].note",), (r"took \d+ ms",))


@pytest.mark.parametrize("kept", [(KEPT, NOTHING_KEPT), (NOTHING_KEPT, KEPT), (KEPT, KEPT)])
@pytest.mark.parametrize("imported", [False, True])
def test_the_rules_of_either_side_apply_to_both(kept: tuple[Kept, Kept], imported: bool) -> None:
    sides = [work("/w", f"It took {number} ms") for number in (12, 3456)]
    for number, side in enumerate(sides):
        side["messages"][0]["note"] = number
    exchanges = [writing(side, "/w") for side in sides]
    assert compared(*exchanges, kept=kept, imported=imported).same
    assert not compared(*exchanges).same
