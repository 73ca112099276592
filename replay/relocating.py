"""Requests in the folders of the recorded program, and answers in those of the program that asks (recorder/folders.py)."""

from dataclasses import replace

from ..recorder.folders import FolderMap, Folders, pairs_between
from ..recorder.http.exchange import Exchange, Request, TimedPiece, content_encoding, frame_parser
from ..recorder.http.sse import Piece
from ..recorder.secrets.streams import edit_body
from .faults import framed
from .matching.profiles import folders_in, is_claude_code


def folders_between(recorded: Request, request: Request) -> FolderMap:
    """Return the map from the folders of a recorded request to those of a request that it answers.

    The program that runs each of them gives the folders, and Claude Code its own in the prompt.
    """
    pairs = pairs_between(recorded.folders, request.folders)
    if is_claude_code(recorded) and is_claude_code(request):
        pairs |= pairs_between(folders_in(recorded.body), folders_in(request.body))
    return FolderMap(pairs)


def in_folders(request: Request, folders: Folders) -> Request:
    """Return a request with other folders in its body in place of its own."""
    return replace(request, body=FolderMap(pairs_between(request.folders, folders)).data(request.body))


def relocated(exchange: Exchange, folders: FolderMap) -> Exchange:
    """Return an exchange with the folders of its answer mapped; the same exchange if its answer holds none of them.

    A path that is split over several pieces is put into the first of them. A compressed answer is unpacked.
    """
    if not folders or exchange.response is None:
        return exchange
    plain = framed(exchange).response
    assert plain is not None
    if content_encoding(exchange.response.headers) and not plain.body:  # an encoding that this Python cannot read
        return exchange
    has_frames = frame_parser(plain.headers, plain.body) is not None
    before = [Piece(piece.data, piece.is_frame and has_frames) for piece in plain.pieces]
    after = edit_body(before, folders.spans)
    if all(old.data == new.data for old, new in zip(before, after, strict=True)):
        return exchange
    pieces = tuple(
        TimedPiece(timed.offset_ns, piece.data, piece.is_frame) for timed, piece in zip(plain.pieces, after, strict=True)
    )
    return replace(exchange, response=replace(plain, pieces=pieces))
