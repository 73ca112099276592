"""Replay opens no socket: it works if the kernel has no network, and a miss there is a miss, not a failed connection."""

import sys
from pathlib import Path

import pytest

from tests import forks
from tests.clients import record

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")

SCRIPT = """
import asyncio, socket, sys
import anthropic, retold

opened = []

def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        opened.append(event)

sys.addaudithook(note)

ASK = {"model": "claude-sonnet-5-5", "max_tokens": 64}

def question(text):
    return {**ASK, "messages": [{"role": "user", "content": text}]}

def ask(text):
    with anthropic.Anthropic(api_key="k") as client, client.messages.stream(**question(text)) as stream:
        return stream.get_final_text()

async def ask_async(text):
    async with anthropic.AsyncAnthropic(api_key="k") as client, client.messages.stream(**question(text)) as stream:
        return await stream.get_final_text()

def missed(work):
    try:
        work()
    except retold.MissError as miss:
        return str(miss).splitlines()[0]
"""
REFUSED = """
import socket
with socket.socket() as one:
    try:
        one.connect(("127.0.0.1", 9))
    except OSError as error:
        print(error.strerror)
"""
REPLAY = """
with retold.use_cassette("c.yaml"):
    print(ask("one"))
    print(asyncio.run(ask_async("two")))
print(opened)
"""
MISS = """
with retold.use_cassette("c.yaml") as cassette:
    print(missed(lambda: ask("three")))
    print(missed(lambda: asyncio.run(ask_async("four"))))
    print(len(cassette.misses))
print(opened)
"""


CAGE = """
import ctypes, sys, warnings

warnings.simplefilter("error")
user, net = 0x1000_0000, 0x4000_0000  # CLONE_NEWUSER, CLONE_NEWNET
unshare = ctypes.CDLL(None).unshare
if unshare(net) and unshare(user | net):
    sys.exit("not permitted")
"""
"""Put the process into a network namespace of its own with its loopback down, if necessary inside a user namespace."""


def offline(script: str) -> list[str]:
    """Return the lines that a script prints in a process without a network."""
    done = forks.run("-c", CAGE + script, env={"PATH": "/usr/bin:/bin"})
    if done.stderr == "not permitted\n":
        pytest.skip("unshare is not permitted here")
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.splitlines()


def test_the_namespace_has_no_network() -> None:
    """Not even this machine can be reached, so the tests below prove something."""
    assert offline(REFUSED) == ["Network is unreachable"]


@pytest.mark.trap(36)
def test_a_replay_needs_no_network_and_opens_no_socket() -> None:
    """The clients, sync and async, have their production URL. A missing answer is a miss, because retold never connects."""
    record(Path("c.yaml"), "one", "two")
    missed = "no recorded exchange answers call 1, POST /v1/messages, in c.yaml."
    replayed = ["You said one.", "You said two.", "[]"]
    assert offline(SCRIPT + REPLAY + MISS) == [*replayed, missed, missed, "2", "[]"]
