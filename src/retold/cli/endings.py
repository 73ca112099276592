"""The ending of a file names the format of what is written to it. An unknown ending is an error, never a guess."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..recorder.cassette.named import is_elsewhere
from ..recorder.errors import InputError
from ..recorder.files import packing, plain_name, replacing
from .common import note

CASSETTES = (".yaml", ".yml", ".json")


def form_of_file(output: Path, forms: Mapping[str, str], usual: str) -> str:
    """Return the format that the ending of a file names; `.gz` may follow it. A file without an ending has the usual format.

    Raise InputError for an unknown ending.
    """
    ending = Path(plain_name(output)).suffix
    if ending and ending not in forms:
        raise unknown_ending(output, forms)
    return forms.get(ending, usual)


def unknown_ending(output: Path, known: Iterable[str]) -> InputError:
    """Return the error for a file of which the ending names no format."""
    ending = Path(plain_name(output)).suffix
    return InputError(f"{output}: the ending {ending} names no format; use one of {', '.join(known)}, or --format.")


def check_cassette(output: Path | None) -> None:
    """Raise InputError if a file has the ending of another format than that of a cassette, or if a name is not one of a file."""
    if output is not None and is_elsewhere(str(output)):
        raise InputError(f"{output} cannot be written; a cassette is written to a file.")
    ending = "" if output is None else Path(plain_name(output)).suffix
    if ending and ending not in (*CASSETTES, ".toml"):  # which has an error of its own
        raise InputError(
            f"{output}: the ending {ending} is not that of a cassette; use one of {', '.join(CASSETTES)}; .gz may follow."
        )


def file_of(output: Path | None) -> Path | None:
    """Return the file of `-o`, or None for stdout: without the option, and for `-`."""
    return None if output is None or str(output) == "-" else output


@contextlib.contextmanager
def printed_to(output: Path | None, *, what: str, force: bool = True) -> Iterator[None]:
    """Write what the block prints to a file, completely or not at all, with a note. Without a file, print it.

    An ending `.gz` compresses. Raise InputError if the file exists and may not be replaced, or cannot be written.
    """
    if output is None:
        yield
        return
    if output.exists() and not force:
        raise InputError(f"{output} exists already; name another file, or replace it with --force.")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        yield
    try:
        with replacing(output, mode=0o600) as file, packing(file, output) as packed:
            packed.write(printed.getvalue().encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror or error}.") from error
    note(f"retold: {what} written to {output}")
