"""Pass errors of retold through the `anthropic` SDK to the caller at once, without retries and without a connection error around.

1. Since 0.108 the SDK raises an error of its own kind (`AnthropicError`) unchanged, so the error becomes one.
2. Older SDKs catch every `Exception` of a request, retry it and raise `APIConnectionError`. Through these the error travels
   as a `BaseException`, from the transport to the client's `request` method, which is wrapped once in a process and raises
   the error itself.
"""

import functools
import importlib
import importlib.metadata
import sys
from contextvars import ContextVar
from typing import Any


class _Carried(BaseException):
    """Carries an error through an old SDK."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


_is_unwrapped: ContextVar[bool] = ContextVar("retold_is_unwrapped", default=False)
"""Whether a wrapped `request` method is on the stack, which turns a carried error back into itself."""


def for_sdk(error: Exception) -> BaseException:
    """Return the error in the form that the installed SDK raises at once. For new SDKs it is an SDK error, too.

    The error can be pickled like all errors of retold, so a child process can raise it in its parent.
    """
    sdk = sys.modules.get("anthropic")
    if sdk is None:
        return error
    if not isinstance(error, sdk.AnthropicError):
        kind = type(error)
        fields = {"__module__": "retold", "__doc__": kind.__doc__, "__reduce__": lambda error: (_again, (kind, *error.args))}
        both = type(kind.__name__, (kind, sdk.AnthropicError), fields)
        error = both(str(error))
    return _Carried(error) if _is_unwrapped.get() else error


def _again(kind: type[Exception], *arguments: Any) -> BaseException:
    """Return an unpickled error, in the form that the SDK of this process raises at once."""
    return for_sdk(kind(*arguments))


def prepare_sdk(*, imports: bool) -> None:
    """Wrap the `request` methods of an SDK older than 0.108; other SDKs need nothing. Later calls change nothing.

    With `imports`, import an old SDK that is installed but not imported, because it could not be wrapped later.
    """
    if "anthropic" not in sys.modules and not (imports and _is_old()):
        return
    client = importlib.import_module("anthropic._base_client")
    if hasattr(client.BaseClient, "_should_retry_exception") or hasattr(client.SyncAPIClient.request, "__wrapped__"):
        return
    client.SyncAPIClient.request = _unwrapping(client.SyncAPIClient.request)
    client.AsyncAPIClient.request = _unwrapping_async(client.AsyncAPIClient.request)


def _is_old() -> bool:
    try:
        version = importlib.metadata.version("anthropic")
    except importlib.metadata.PackageNotFoundError:
        return False
    major, minor, *_ = (*version.split("."), "0")
    return major == "0" and minor.isdigit() and int(minor) < 108


def _unwrapping(request: Any) -> Any:
    @functools.wraps(request)
    def raising_the_error_itself(*args: Any, **kwargs: Any) -> Any:
        token = _is_unwrapped.set(True)
        try:
            return request(*args, **kwargs)
        except _Carried as carried:
            raise carried.error from None
        finally:
            _is_unwrapped.reset(token)

    return raising_the_error_itself


def _unwrapping_async(request: Any) -> Any:
    @functools.wraps(request)
    async def raising_the_error_itself(*args: Any, **kwargs: Any) -> Any:
        token = _is_unwrapped.set(True)
        try:
            return await request(*args, **kwargs)
        except _Carried as carried:
            raise carried.error from None
        finally:
            _is_unwrapped.reset(token)

    return raising_the_error_itself
