"""retold: record every Claude message stream once; retell it anywhere.

Public names are imported on first use, so that `import retold` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent_sdk.session_store import session_store as session_store
    from .comparing.assertion import assert_same_stream as assert_same_stream
    from .comparing.compare import Comparison as Comparison
    from .comparing.compare import Difference as Difference
    from .comparing.sources import compare as compare
    from .experiments.block import fork as fork
    from .experiments.trajectory import ExpectedTool as ExpectedTool
    from .experiments.trajectory import Trajectory as Trajectory
    from .experiments.trajectory import trajectory as trajectory
    from .fleet.background import shipping as shipping
    from .middleware import Recording as Recording
    from .middleware import recording as recording
    from .recorded_block import record as record
    from .recorder.cassette.format import Cassette as Cassette
    from .recorder.cassette.format import read_cassette as read_cassette
    from .recorder.cassette.format import write_cassette as write_cassette
    from .recorder.errors import BlockedError as BlockedError
    from .recorder.errors import CassetteError as CassetteError
    from .recorder.errors import CassetteMissing as CassetteMissing
    from .recorder.errors import HandlerError as HandlerError
    from .recorder.errors import InputError as InputError
    from .recorder.errors import LeftOutWarning as LeftOutWarning
    from .recorder.errors import LogError as LogError
    from .recorder.errors import LogFolderWarning as LogFolderWarning
    from .recorder.errors import LogSpaceWarning as LogSpaceWarning
    from .recorder.errors import LogVersionError as LogVersionError
    from .recorder.errors import MissError as MissError
    from .recorder.errors import RecordingEnded as RecordingEnded
    from .recorder.errors import RecordingLostWarning as RecordingLostWarning
    from .recorder.errors import RetoldError as RetoldError
    from .recorder.errors import RunError as RunError
    from .recorder.errors import ShelfError as ShelfError
    from .recorder.errors import ShippingWarning as ShippingWarning
    from .recorder.errors import WorkflowError as WorkflowError
    from .recorder.events import Event as Event
    from .recorder.http.exchange import Exchange as Exchange
    from .recorder.http.exchange import Place as Place
    from .recorder.http.exchange import Request as Request
    from .recorder.http.exchange import Response as Response
    from .recorder.log.log import EventLog as EventLog
    from .recorder.log.runs import RunInfo as RunInfo
    from .recorder.messages import Message as Message
    from .replay.timing.timing import Timing as Timing
    from .testing.drift import DriftWarning as DriftWarning
    from .testing.loading import ExpiredWarning as ExpiredWarning
    from .testing.use import FaultWarning as FaultWarning
    from .testing.use_cassette import use_cassette as use_cassette
    from .testing.used import UsedCassette as UsedCassette
    from .workflow.results import RunResult as RunResult
    from .workflow.results import StepResult as StepResult
    from .workflow.results import TaskResult as TaskResult
    from .workflow.runner import arun_workflow as arun_workflow
    from .workflow.runner import run_workflow as run_workflow

_HOMES = {
    "agent_sdk.session_store": ("session_store",),
    "comparing.assertion": ("assert_same_stream",),
    "comparing.sources": ("compare",),
    "experiments.block": ("fork",),
    "experiments.trajectory": ("ExpectedTool", "Trajectory", "trajectory"),
    "fleet.background": ("shipping",),
    "middleware": ("Recording", "recording"),
    "recorded_block": ("record",),
    "recorder.cassette.format": ("Cassette", "read_cassette", "write_cassette"),
    "recorder.errors": (
        "BlockedError",
        "CassetteError",
        "CassetteMissing",
        "HandlerError",
        "InputError",
        "LogError",
        "LeftOutWarning",
        "LogFolderWarning",
        "LogSpaceWarning",
        "LogVersionError",
        "MissError",
        "RecordingEnded",
        "RecordingLostWarning",
        "RetoldError",
        "RunError",
        "ShelfError",
        "ShippingWarning",
        "WorkflowError",
    ),
    "recorder.events": ("Event",),
    "recorder.http.exchange": ("Exchange", "Place", "Request", "Response"),
    "recorder.log.runs": ("RunInfo",),
    "recorder.log.log": ("EventLog",),
    "recorder.messages": ("Message",),
    "comparing.compare": ("Comparison", "Difference"),
    "replay.timing.timing": ("Timing",),
    "testing.use_cassette": ("use_cassette",),
    "testing.drift": ("DriftWarning",),
    "testing.loading": ("ExpiredWarning",),
    "testing.use": ("FaultWarning",),
    "testing.used": ("UsedCassette",),
    "workflow.results": ("RunResult", "StepResult", "TaskResult"),
    "workflow.runner": ("run_workflow", "arun_workflow"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("retold")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'retold' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return [*globals(), "__version__", *__all__]
