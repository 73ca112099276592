"""The files for clusters: their commands and settings run as processes, and end like in a cluster."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from retold.recorder.log.log import EventLog
from tests.children import Folder, line_of, rest_of, wait_until
from tests.conftest import ROOT
from tests.e2e import in_this_process
from tests.messages_server import MessagesServer, Reply, text
from tests.test_fleet import assert_equal
from tests.wire import asks

FILES = ROOT / "examples" / "fleet"


@pytest.fixture
def folder() -> Iterator[Folder]:
    """Return the working directory, with children."""
    folder = Folder(Path.cwd())
    yield folder
    folder.close()


def here(environment: dict[str, str]) -> dict[str, str]:
    """Return the settings of a container with the shelf and the log of this test, without the files of a secret."""
    changed = {"RETOLD_SHIP": "shelf", "RETOLD_DB": "log.db"}
    secret = ("RETOLD_NATS_CREDENTIALS", "RETOLD_NATS_CA")
    return {name: changed.get(name, value) for name, value in environment.items() if name not in secret}


def ends_well(child: Any) -> str:
    """Wait for a child, and return its messages."""
    _, err = rest_of(child)
    assert child.returncode == 0, err
    return err


def kubernetes() -> dict[str, Any]:
    """Return the specification of the pod."""
    deployment = yaml.safe_load((FILES / "kubernetes.yaml").read_text("utf-8"))
    return dict(deployment["spec"]["template"]["spec"])


def test_modes_of_files_are_decimal_numbers() -> None:
    """Octal numbers differ between versions of YAML, and the API server accepts only numbers."""
    assert [each["secret"]["defaultMode"] for each in kubernetes()["volumes"] if "secret" in each] == [0o440]


@pytest.mark.stress
def test_a_pod_ended_by_kubernetes_leaves_no_events(folder: Folder) -> None:
    """The sidecar's preStop runs while the program ends. The sidecar gets SIGTERM after both."""
    pod = kubernetes()
    (sidecar,), (agent,) = pod["initContainers"], pod["containers"]
    retold, *shipping = sidecar["command"]
    recording = agent["command"][1 : agent["command"].index("--") + 1]
    hook = sidecar["lifecycle"]["preStop"]["exec"]["command"]
    assert {retold, agent["command"][0], hook[0]} == {"retold"}
    own, shared = ({each["name"]: each["value"] for each in container["env"]} for container in (agent, sidecar))
    shelf = here(shared)
    with MessagesServer([Reply([text("Hello.")])] * 2) as server:
        shipper = folder.spawn(*shipping, **shelf)
        program = folder.spawn(*recording[:1], "--upstream", server.url, *recording[1:], *asks("a", "b", "sleep"), **here(own))
        assert [line_of(program.stdout)[:5] for _ in range(3)] == ["[200,", "[200,", "ready"]
        pre_stop = folder.spawn(*hook[1:], **shelf)
        program.send_signal(signal.SIGTERM)
        rest_of(program)
        assert program.returncode == 17  # of the agent, which received the signal
        assert "nothing is left" in ends_well(pre_stop)
        shipper.send_signal(signal.SIGTERM)
        assert "nothing is left" in ends_well(shipper)
    _pull_and_compare()


@pytest.mark.stress
def test_services_ended_by_compose_leave_no_events(folder: Folder) -> None:
    """Compose sends SIGTERM to all at once. The shipper ships the rest, and the next start ships a run that ends later.

    On a busy machine the recorder writes its last event after the last look of the shipper, which then reports it as left.
    """
    services = yaml.safe_load((FILES / "compose.yaml").read_text("utf-8"))["services"]
    agent, sidecar = services["pod-a"], services["ship-a"]
    recording = agent["command"][1 : agent["command"].index("--") + 1]
    shelf = here(sidecar["environment"])
    with MessagesServer([Reply([text("Hello.")])] * 2) as server:
        shipper = folder.spawn(*sidecar["command"][1:], **shelf)
        given = ("--upstream", server.url)
        program = folder.spawn(*recording[:1], *given, *recording[1:], *asks("a", "b", "sleep"), **here(agent["environment"]))
        assert [line_of(program.stdout)[:5] for _ in range(3)] == ["[200,", "[200,", "ready"]
        for child in (program, shipper):
            child.send_signal(signal.SIGTERM)
        rest_of(program)
        _, err = rest_of(shipper)
        assert shipper.returncode == ("left: " in err), err
    again = folder.spawn(*sidecar["command"][1:], **shelf)  # `restart: unless-stopped`, at the next `up`
    wait_until(_is_pulled)
    again.send_signal(signal.SIGTERM)
    assert "nothing is left" in ends_well(again)
    _pull_and_compare()


def _is_pulled() -> bool:
    in_this_process("pull", "shelf", "--db", "mirror.db")
    return [info.status for info in EventLog("mirror.db").runs()] == [info.status for info in EventLog("log.db").runs()]


def _pull_and_compare() -> None:
    assert in_this_process("pull", "shelf", "--db", "mirror.db").returncode == 0
    log, mirror = EventLog("log.db"), EventLog("mirror.db")
    assert [(info.status, info.exchanges) for info in log.runs()] == [(mirror.runs()[0].status, 2)]
    assert_equal(mirror, log)
