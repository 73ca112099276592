"""`retold proxy --processes N`: several processes behind one port write one log, and end together."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import retold
from tests.children import DEADLINE_S, Child, Folder, line_of, rest_of, wait_until
from tests.clients import body
from tests.conftest import Cli
from tests.exchanges import answer, exchange
from tests.wire import post, wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not spread connections over processes")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def api() -> Iterator[str]:
    recorded = [
        exchange(answer(b"event: ping\ndata: 1\n\n", b"event: ping\ndata: 2\n\n"), json.dumps(body("hi")).encode())
        for _ in range(40)
    ]
    with wire(mode="none", recorded=recorded) as running:
        yield running.url


def workers_of(proxy: Child) -> list[int]:
    return sorted(map(int, Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def used(folder: Folder, api: str) -> tuple[Child, str]:
    """Return a proxy of two processes that has passed on eight requests, and its URL."""
    proxy = folder.spawn("proxy", "--upstream", api, "--processes", "2")
    url = line_of(proxy.stdout).strip()
    for _ in range(8):
        post(url)
    return proxy, url


def test_they_share_one_address_and_one_log(folder: Folder, api: str) -> None:
    """One line on stdout, a run of each process, one cassette with all exchanges, and Ctrl-C ends all with their summaries."""
    proxy = folder.spawn("proxy", "--upstream", api, "--processes", "2", "-o", "c.yaml", "--name", "shared")
    url = line_of(proxy.stdout).strip()
    workers = workers_of(proxy)
    answers = {post(url).sha256 for _ in range(24)}  # all on one process in 1 of 8 million cases
    os.kill(proxy.pid, signal.SIGINT)
    out, err = rest_of(proxy)
    assert (out, proxy.returncode, len(workers), len(answers)) == ("", 0, 2, 1)
    assert [pid for pid in workers if is_alive(pid)] == []
    runs = folder.log.runs()
    assert [(run.name, run.status) for run in runs] == [("shared", "completed")] * 2
    assert sum(run.exchanges for run in runs) == 24
    assert err.count("Ctrl-C or SIGTERM ends it") == 1
    assert f"(shared) at {url} in 2 processes" in err
    assert err.count("retold: recorded ") == 2
    assert "retold: wrote 24 exchanges to c.yaml\n" in err
    kept = retold.read_cassette(folder.path / "c.yaml").exchanges
    assert [each.place.call for each in kept] == list(range(1, 25))
    assert [each.recorded_at for each in kept] == sorted(each.recorded_at for each in kept)


def test_one_that_dies_is_named_and_replaced(folder: Folder, api: str) -> None:
    """Its run counts as interrupted, the others go on, and the exit code reports the loss."""
    proxy, url = used(folder, api)
    before = workers_of(proxy)
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(set(workers_of(proxy)) - {before[0]}) == 2)
    line_of(proxy.stderr)  # the address
    assert f"(pid {before[0]}) was ended by SIGKILL; another one takes its place." in line_of(proxy.stderr)
    for _ in range(8):
        assert post(url).status == 200
    os.kill(proxy.pid, signal.SIGTERM)
    _, err = rest_of(proxy)
    assert proxy.returncode == 1
    assert "retold: a process of the proxy died, with the streams in flight." in err
    assert {run.status for run in folder.log.runs()} <= {"completed", "interrupted"}
    assert sum(run.exchanges for run in folder.log.runs() if run.status == "completed") >= 8


def test_too_many_deaths_end_the_proxy(folder: Folder) -> None:
    proxy = folder.spawn("proxy", "--processes", "2")
    line_of(proxy.stdout)
    killed = set[int]()
    until = time.monotonic() + DEADLINE_S
    while proxy.poll() is None and time.monotonic() < until:
        for pid in [pid for pid in workers_of(proxy) if pid not in killed]:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.05)
    _, err = rest_of(proxy)
    assert proxy.returncode == 1
    assert "the proxy" in err.splitlines()[-1]
    assert [pid for pid in killed if is_alive(pid)] == []


def test_none_outlives_the_proxy(folder: Folder, api: str) -> None:
    """If SIGKILL ends the proxy, its processes end their runs and leave."""
    proxy, _ = used(folder, api)
    workers = workers_of(proxy)
    os.kill(proxy.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, workers)))
    assert {run.status for run in folder.log.runs()} == {"completed"}


def test_a_port_in_use_is_one_line(folder: Folder, cli: Cli) -> None:
    """Also a port that another proxy shares among its own processes."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = cli("proxy", "--processes", "2", "--port", str(taken.getsockname()[1]))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("retold: cannot listen on 127.0.0.1 port ")
    other = folder.spawn("proxy", "--processes", "2")
    port = line_of(other.stdout).strip().rpartition(":")[2]
    refused = cli("proxy", "--processes", "2", "--port", port)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"retold: cannot listen on 127.0.0.1 port {port}: it is in use.")


def test_an_unusable_log_is_reported_once(cli: Cli, tmp_path: Path) -> None:
    refused = cli("proxy", "--processes", "2", "--db", str(tmp_path))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("cannot ") == 1


def test_a_token_is_no_argument_of_a_process(folder: Folder, api: str) -> None:
    """Every user of a machine can read the arguments of its processes. Each process asks for the token."""
    token = "a-token-of-some-length"
    proxy = folder.spawn("proxy", "--upstream", api, "--processes", "2", "--allow-remote", RETOLD_TOKEN=token)
    url = line_of(proxy.stdout).strip()
    for pid in workers_of(proxy):
        assert token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert {post(url).status for _ in range(8)} == {403}
    assert {post(url, headers={"x-retold-token": token}).status for _ in range(8)} == {200}
