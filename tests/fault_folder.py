"""The folder of inputs beside a working copy. Its scripts import modules of retold by names that have changed since."""

import atexit
import functools
import re
import shutil
import tempfile
from pathlib import Path

from tests import forks
from tests.conftest import SHARED
from tests.messages_server import MessagesServer, Reply, text

RENAMED = {
    "retold.recorder.capture": "retold.recorder.http.capture",
    "retold.recorder.cassette": "retold.recorder.cassette.format",
    "retold.recorder.exchange": "retold.recorder.http.exchange",
    "retold.recorder.fold": "retold.recorder.http.fold",
    "retold.recorder.ledger": "retold.recorder.log.store",
    "retold.recorder.redact": "retold.recorder.secrets.redactor",
    "retold.recorder.redact_frames": "retold.recorder.secrets.streams",
    "retold.recorder.sse": "retold.recorder.http.sse",
    "retold.recorder.transfer": "retold.recorder.cassette.transfer",
    "retold.replay.rules": "retold.replay.matching.rules",
    "retold.replay.timing": "retold.replay.timing.timing",
    "retold.used": "retold.testing.session",
}

CHANGED = {
    "page=EventLog._page": "from retold.recorder.log.sqlite.reading import SqliteReadings; page=SqliteReadings.read",
    "def counted(self,*a): polls[0]+=1; return page(self,*a)": "def counted(self,*a,**k): polls[0]+=1; return page(self,*a,**k)",
    "EventLog._page=counted": "SqliteReadings.read=counted",
    "from retold.used import UsedCassette": "from retold.testing.session import CassetteSession as UsedCassette",
    'use._place(Request("GET","x"),"k")': 'use.calls.place("k", "0")',
    "log._alive._held": "log.store._alive._held",
    "from retold.recorder.ledger import Head, head": "from retold.recorder.log.store import Head",
    "str(head(c))": 'str(EventLog(d + "/log.db").head())',
}
"""Other internal names that the scripts import."""

STARTED = 'subprocess.run(["retold", *args], env=env(url, **more), capture_output=True, timeout=60)'
FORKED = "_forked(*args, env=env(url, **more))"
FORKING = """
from tests import forks
def _forked(*args, env):
    done = forks.run("-m", "retold", *args, env=env)
    done.stdout, done.stderr = done.stdout.encode(), done.stderr.encode()
    return done
"""
"""check.py runs the command line fifty times, often live. Its children are forked from a process that has imported the SDK."""


def check_script() -> Path:
    """Return a copy of logs/check.py that forks its children."""
    script = copy_of("logs") / "check.py"
    source = script.read_text()
    if STARTED in source:
        first = source.index("only, HOME =")
        script.write_text(source[:first] + FORKING.lstrip() + source[first:].replace(STARTED, FORKED))
    return script


def _translated(script: str) -> str:
    for old, new in CHANGED.items():
        script = script.replace(old, new)
    script = re.sub(r"\bretold\.[a-z_.]+[a-z_]\b", lambda found: RENAMED.get(found[0], found[0]), script)
    # The call's number is now a field of an exchange's place.
    script = re.sub(r"^(.*\bExchange\(.*\b)call=([^,()]+)\)", r"\1place=Place(call=\2))", script, flags=re.MULTILINE)
    return script.replace("import Exchange, Request", "import Exchange, Place, Request")


@functools.cache
def copy_of(folder: str) -> Path:
    """Return a copy of a folder of inputs, with scripts that import each module by its present name."""
    home = Path(tempfile.mkdtemp(prefix="retold-inputs-"))
    atexit.register(shutil.rmtree, home)
    copy = Path(shutil.copytree(SHARED / "faults" / folder, home / folder))
    for script in copy.rglob("*.py"):
        script.write_text(_translated(script.read_text()))
    return copy


def run_suite(*arguments: str, env: dict[str, str]) -> str:
    """Run pytest against a scripted API. Return its output and a line with the number of requests, as run_suite.py does."""
    with MessagesServer(lambda _: Reply([text("Hello")])) as api:
        options = ("-q", "-p", "no:cacheprovider", "-p", "no:asyncio")
        done = forks.run("-m", "pytest", *options, *arguments, env=env | {"ANTHROPIC_BASE_URL": api.url})
        return f"{done.stdout}{done.stderr}\ncalls that reached the API: {len(api.requests)}\n"
