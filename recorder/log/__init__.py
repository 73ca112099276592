"""The log: the one writer interface, its readers, and the stores that keep events."""

from .log import EventLog as EventLog
