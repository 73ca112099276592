"""The fault inputs about external text, run by their own script. Skipped in a clone without them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault_folder import check_script

ROOT = Path(__file__).parents[1]
CHECK = ROOT.parent / "shared" / "faults" / "logs" / "check.py"

RIGHT = {
    "zero_time": r"\(0, ''\)",
    "cjk": r"\{[^1-9]*\}",
    "nul": r".*first\\x00second and \\x02third\\x03 fourth', 'found': \[\[25, 31\]\].*",
    "grown": r"claude-haiku-4-5,2,3,3,300,30,.*",
    "truncated": r"\(0, 'retold: truncated.jsonl:4: the last line is cut short and was left out\\n'\)",
    "nan": r"not JSON:",
    "days": r"\(\[\['2026-10-24', '1', '2'\], \['2026-10-25', '0', '2'\]\].*",
    "condition_none": r"\(0, .*was skipped: steps.a.cost_usd > 0.01 does not hold.*",
    "comment_eaten": r"Explain \{#if x\}hi\{/if\} given yes and #\} done",
    "yaml11": r"v1.10 at 12:30 in NO id 0123",
    "extract_json": r".*'completed'.*'completed'.*'completed'.*'completed'.*'failed'.*",
    "extract_summary": r"Forty-two\.",
    "extract_structured": r"\{'A': 'line\\u2028sep', 'B': 'text b', 'C': 'text c'\}",
    "empty_turns": r"\(\[\{'role': 'user', 'content': 'one'\}, \{'role': 'user', 'content': 'two'\}\], \{'type': 'tool_use'.*",
    "surrogate_split": r"\('smile \U0001f600 done', 'smile \U0001f600 done'\)",
    "callback_chdir": r"\(1, .*2 calls paid.*cassettes/callback_chdir.yaml.*",
    "console_tokens": r"\['Tokens +300 in, 30 out'\]",
    "append_false": r"\['[^']* ASSISTANT: one', '[^']* ASSISTANT: two'\]",
    "tilde": r"\[\]",
    "redact_line_separator": r"\{'plain': \(0, \[\], .*'U\+2028': \(0, \[\], .*\}",
    "rotation_compress": r"lines kept: 100 of 100",
    "terminal_text": r"clean",
    "forged_lines": r"ASSISTANT: Hello\n  TOOL USE: Bash.*",
    "lost_stdout": r"\{[^T]*\(1, False\)[^T]*\(1, False\)[^T]*\(1, False\)[^T]*\(1, False\)\}",
}


@pytest.mark.stress
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.skipif(not CHECK.exists(), reason="the fault inputs are not there")
def test_fault_inputs_give_the_correct_values(half: int, tmp_path: Path, environment: dict[str, str]) -> None:
    """Each entry of the script prints the expected value of its input."""
    wanted = dict(list(RIGHT.items())[half::2])
    path = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    command = [sys.executable, str(check_script()), str(ROOT), *wanted]
    done = subprocess.run(command, cwd=tmp_path, env=environment | {"PATH": path}, capture_output=True, text=True, timeout=600)
    found = {name: given.strip() for name, given in re.findall(r"## (\w+)\n.*?\n   is:(.*?)\n\n", done.stdout, re.DOTALL)}
    wrong = {name: found.get(name) for name, right in wanted.items() if not re.fullmatch(right, found.get(name, ""), re.DOTALL)}
    assert wrong == {}
