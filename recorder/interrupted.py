"""Runs without a last event: the reason, and the blocks that were being streamed when their writer died."""

from collections.abc import Iterator

from .events import Event, encode
from .http.refold import REFOLDED, refold_events
from .log.reading import LogReader
from .messages import Session

DIED = "the recording process died"

GOES_ON = "the run goes on"


def why_unended(log: LogReader, run: str) -> str:
    """Return the reason why a run has no last event: it continues, its log could not be written, or its writer died."""
    info = log.find(run)
    return GOES_ON if info.status == "running" else f"{info.status}: {info.error or DIED}"


def events_of(log: LogReader, run: str, kinds: tuple[str, ...]) -> Iterator[Event]:
    """Yield the events of a run as a handler reads them; those of an interrupted run end with its incomplete messages."""
    last = None
    for event in log.events(run, kinds=kinds):
        if event.kind == "run.ended" and event.data.get("status") == "interrupted":
            yield from _incomplete(log, run)
        yield event
        last = event
    if last is not None and last.kind != "run.ended" and log.find(run).status == "interrupted":
        yield from _incomplete(log, run)


def _incomplete(log: LogReader, run: str) -> Iterator[Event]:
    """Fold the frames of each exchange without an end again, and yield the blocks that were still open."""
    started = {event.seq: event for event in log.events(run, kinds=("exchange.started",))}
    for event in log.events(run, kinds=("exchange.ended",)):
        started.pop(event.exchange or -1, None)
    for exchange in started:
        last = started[exchange]
        said = [m for m in log.messages(run, step=last.step or None) if m.task == last.task and m.data.get("session_id")]
        session = Session(said[-1].data["session_id"] if said else run, made=len(said))
        answer = list(log.events(run, exchange=exchange, kinds=REFOLDED))
        last = answer[-1] if answer else last
        fold = refold_events(answer, session)
        for message in fold.flush():
            yield last._replace(kind="message", payload=encode(message))
