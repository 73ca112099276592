"""A canary: does a request of the installed SDK still pass through the patched transport?

If an SDK stops using httpx2, patching it would silently record and replay nothing, and tests would reach the network. So the
first `use_cassette` of a process sends one request of a real client to a caged interceptor, and fails loudly if it does not
arrive.
"""

import sys
from typing import Any

from .recorder.errors import RetoldError
from .recorder.tee import Send, SendAsync, intercepted

_checked: set[str] = set()


class _Caught(Exception):
    """The canary arrived."""


class _Cage:
    def handle(self, request: Any, send: Send) -> Any:  # noqa: ARG002 - as every interceptor
        raise _Caught

    async def handle_async(self, request: Any, send: SendAsync) -> Any:  # noqa: ARG002 - as every interceptor
        raise _Caught


def check_sdk() -> None:
    """Raise RetoldError if the `anthropic` SDK, where it is imported, no longer sends through a patched transport."""
    sdk = sys.modules.get("anthropic")
    if sdk is None or sdk.__version__ in _checked:
        return
    # Nothing listens on port 9 of this machine; a request that escapes the cage fails there.
    client = sdk.Anthropic(api_key="canary", base_url="http://127.0.0.1:9", max_retries=0)
    try:
        with intercepted(_Cage()):
            client.models.list()
    except sdk.APIConnectionError as error:
        if isinstance(error.__cause__, _Caught):
            _checked.add(sdk.__version__)
            return
    finally:
        client.close()
    raise RetoldError(
        f"anthropic {sdk.__version__} does not send its requests through httpx2 as this retold knows it, so they could "
        "neither be recorded nor replayed. Update retold, or record explicitly: Anthropic(middleware=[retold.recording(log)])."
    )
