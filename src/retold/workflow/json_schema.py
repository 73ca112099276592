"""The JSON Schema of workflow files, made from the models that check them."""

from typing import Any

from ..handlers import HANDLERS
from .step_types import File

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) that accepts what `retold validate` accepts, references and templates aside.

    `stream_handler_opts` takes the options of any handler; which of them belong to which handler only `validate` can say.
    """
    schema = File.model_json_schema()
    options = schema["$defs"]["ClaudeOptions"]["properties"]
    known: dict[str, Any] = {}
    for name, handler in HANDLERS.items():
        made = handler.Options.model_json_schema()
        schema["$defs"] |= made.get("$defs", {})
        for option, said in made["properties"].items():
            known.setdefault(option, {**said, "description": f"{name}: {' '.join((handler.__doc__ or '').split())}"})
            known[option].pop("default", None)
    options["stream_handler_opts"] = {
        "description": "Options of the handlers that stream_handler names.",
        "anyOf": [{"type": "object", "properties": known, "additionalProperties": False}, {"type": "null"}],
    }
    return {"$schema": DIALECT, "$id": "retold-workflow.schema.json", **schema, "title": "retold workflow"}
