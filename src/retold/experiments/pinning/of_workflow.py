"""The test of a workflow's run: `retold.run_workflow` replays its cassette."""

import shlex
from pathlib import Path

from ...recorder.words import one_line
from .draft import Draft, shown
from .expectations import expectations
from .literals import assignment, literal
from .parts import Parts


def workflow_parts(draft: Draft, workflow: Path) -> Parts:
    """Return the parts of the test of a run of a workflow file."""
    name = shown(workflow)
    body = [
        "monkeypatch.chdir(tmp_path)  # for the log, and for files that steps write",
        "result = retold.run_workflow(WORKFLOW, cassette=CASSETTE, handlers=[])",
        f'assert result.status == "{"completed" if draft.run.status == "completed" else "failed"}", result.error',
    ]
    if draft.run.status != "completed" and draft.run.error:
        body.append(f"assert {literal(_part(draft.run.error))} in result.error")
    # A session of the Agent SDK names the working directory, which differs from run to run; a cassette has a neutral name for it.
    return Parts(
        f"The workflow {one_line(name)}",
        "The workflow runs offline: its answers, and the results of its tools, come from the cassette. If a prompt changes, an "
        "error names the difference. Edit this file as you like. This command records the cassette again:",
        f"retold run {shlex.quote(name)} --live --cassette {shlex.quote(shown(draft.cassette))}",
        frozenset({"from pathlib import Path", "import retold"}),
        (assignment("WORKFLOW", draft.place(workflow)), assignment("CASSETTE", draft.place(draft.cassette))),
        tuple(body),
        tuple(expectations(draft.trajectory, "CASSETTE" if draft.sessions else "result")),
        ("monkeypatch", "tmp_path"),
    )


def _part(error: str) -> str:
    """Return the part of an error that a test expects: its first line, without its end if that is long."""
    return error.split("\n")[0][:80]
