"""No client reaches the API in a replay, whichever way its code runs: the table of clients × ways × modes."""

import json
import subprocess

import pytest

from tests import forks, recipes
from tests.client_table import CLIENTS, REFUSED, UNKNOWN
from tests.conftest import ROOT
from tests.messages_server import MessagesServer

OTHERS = ROOT / ".clients" / "table" / "bin" / "python"
"""An environment with clients of other projects (tests/client_table.txt), created by `.ci/run`."""

QUICK = ("anthropic", "anthropic aiohttp", "anthropic own transport", "aiohttp", "urllib")


def check(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """Check every cell of the printed rows, and return the clients in them."""
    assert done.returncode == 0, done.stderr[-2000:]
    table: dict[str, dict[str, tuple[str, int]]] = json.loads(done.stdout.splitlines()[-1])
    for name, row in table.items():
        is_known = name not in UNKNOWN
        recorded, sent = row.pop("recorded")
        assert (recorded, sent) == (str(int(is_known)), 1), name
        assert {way: calls for way, (_, calls) in row.items() if calls} == {}, name
        missed, _ = row.pop("a miss")
        assert missed not in ("played", "another answer"), name
        refused = {way for client, way in REFUSED if client == name}
        assert {row.pop(way)[0] for way in refused} & {"played", "another answer"} == set(), name
        outcomes = {outcome for outcome, _ in row.values()}
        assert outcomes == {"played"} if is_known else "played" not in outcomes, (name, row)
    return list(table)


def test_no_client_is_live_in_a_replay(environment: dict[str, str]) -> None:
    """Code runs directly, in threads, pools, loops and tasks older than the block, in raw threads, and in forked children."""
    done = forks.run("-m", "tests.client_table", *QUICK, env=environment | {"PYTHONPATH": str(ROOT)})
    assert check(done) == list(QUICK)


@pytest.mark.stress
@pytest.mark.skipif(not OTHERS.exists(), reason="the clients of other projects are not installed (.ci/run installs them)")
def test_no_client_of_another_project_is_live_in_a_replay(environment: dict[str, str]) -> None:
    """The clients are those of other projects: litellm, langchain, pydantic-ai, instructor and more.

    They include openai and google-genai with another address, Bedrock, Vertex and greenlets. The recipes of the documentation
    run in the same process. Their replay sends nothing, and each other part sends its requests.
    """
    recipes.write()
    command = [str(OTHERS), "-W", "ignore", "-m", "tests.recipes"]
    with MessagesServer(recipes.answer) as server:
        own = {"PYTHONPATH": str(ROOT), "ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_BASE": server.url}
        own |= {"ANTHROPIC_API_KEY": "test-key", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        done = subprocess.run(command, env=environment | own, capture_output=True, text=True, check=False)
    assert check(done) == list(CLIENTS)
    recipes.check(next(line for line in done.stdout.splitlines() if line.startswith('{"recorded"')))
    # A client that several event loops share retries if its connection belongs to a closed loop, which varies from run to run.
    # The first attempt of such a call may arrive or not.
    attempts = [request.headers.get("x-stainless-retry-count", "0") for request in server.requests]
    assert attempts.count("0") <= 12 <= len(attempts), [request.body for request in server.requests]
