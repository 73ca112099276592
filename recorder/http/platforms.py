"""Paths of Claude on Bedrock and Vertex: they name the model, and places that are no part of the question.

| path | in matching |
|---|---|
| `/model/us.anthropic.claude-x-v1:0/invoke` | `/model/anthropic.claude-x-v1:0/invoke` |
| `/model/arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-x/converse` | `/model/anthropic.claude-x/converse` |
| `/v1/projects/P/locations/us-east5/publishers/anthropic/models/claude-x:rawPredict` | `/models/claude-x:rawPredict` |

The form of the answer (`invoke`, `converse`, with or without a stream) stays, because a client reads only the one it asked for.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ..strict_json import object_in
from . import converse

_BEDROCK = re.compile(r".*/model/([^/]+)/((?:invoke|converse)(?:-with-response-stream|-stream)?)")
_VERTEX = re.compile(r".*/publishers/anthropic/models/([^/]+):((?:raw|streamRaw)Predict)")
_REGION = re.compile(r"[a-z]{2,8}(?:-[a-z]+)?\.(?=anthropic\.)")
"""The prefix of an inference profile: `us.`, `eu.`, `apac.`, `global.`, `us-gov.`"""


def is_on(environ: Mapping[str, str], name: str) -> bool:
    """Return whether a switch of Claude Code is on, such as CLAUDE_CODE_USE_BEDROCK."""
    return environ.get(name, "").lower() not in ("", "0", "false", "no", "off")


def api_of(environ: Mapping[str, str]) -> str:
    """Return the base URL of the API that an environment names: of Bedrock or Vertex if Claude Code uses them."""
    if is_on(environ, "CLAUDE_CODE_USE_BEDROCK"):
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        own = environ.get("ANTHROPIC_BEDROCK_BASE_URL") or environ.get("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
        return own or f"https://bedrock-runtime.{region}.amazonaws.com"
    if is_on(environ, "CLAUDE_CODE_USE_VERTEX"):
        region = environ.get("CLOUD_ML_REGION") or "global"
        hosts = {"global": "aiplatform", "us": "aiplatform.us.rep", "eu": "aiplatform.eu.rep"}
        host = hosts.get(region, f"{region}-aiplatform")
        return environ.get("ANTHROPIC_VERTEX_BASE_URL") or f"https://{host}.googleapis.com/v1"
    return environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"


class ModelPath(NamedTuple):
    """A path that names its model. `action` is its last word: `invoke`, `converse-stream`, `rawPredict` and so on."""

    model: str
    action: str

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream."""
        return "tream" in self.action

    @property
    def matched(self) -> str:
        """The path without regions, accounts and projects."""
        if self.action.endswith("Predict"):
            return f"/models/{self.model}:{self.action}"
        return f"/model/{self.model}/{self.action}"


def model_path(uri: str) -> ModelPath | None:
    """Return the model and the action in a URL of Bedrock or Vertex, or None for any other URL."""
    path = urlsplit(uri).path
    if "/model" not in path:
        return None
    if (found := _VERTEX.fullmatch(path)) is not None:
        return ModelPath(unquote(found[1]), found[2])
    if (found := _BEDROCK.fullmatch(path)) is None:
        return None
    name = unquote(found[1])
    if name.startswith("arn:"):
        name = name.rpartition("/")[2]
    return ModelPath(_REGION.sub("", name, count=1) if _REGION.match(name) else name, found[2])


def model_in(uri: str) -> str | None:
    """Return the model that a URL names, or None."""
    found = model_path(uri)
    return None if found is None else found.model


class MessagesRequest(NamedTuple):
    """The path and the body of a request to the Messages API."""

    path: str
    body: dict[str, Any]


def messages_request(uri: str, body: str | bytes) -> MessagesRequest | None:
    """Return the request to the Messages API that a request of Bedrock or Vertex is equal to; None for any other request."""
    if (found := model_path(uri)) is None or not (asked := object_in(body)):
        return None
    if found.action.startswith("converse"):
        asked = converse.request_of(asked)
    own = {name: value for name, value in asked.items() if name not in ("anthropic_version", "anthropic_beta")}
    if found.model == "count-tokens":
        return MessagesRequest("/v1/messages/count_tokens", own)
    return MessagesRequest("/v1/messages", {"model": found.model, **own} | ({"stream": True} if found.streams else {}))


def asked_of(uri: str, body: str | bytes) -> dict[str, Any]:
    """Return the JSON object of a request in the shape of the Messages API; empty if its body is none."""
    found = messages_request(uri, body)
    return object_in(body) if found is None else found.body
