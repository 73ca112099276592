"""The JSON Schema of workflow files, generated from the models that check them."""

from typing import Any

from ..handlers import HANDLERS
from .key_texts import OF_OPTIONS, OF_STEP, OF_WORKFLOW
from .step_types import STEPS, WorkflowFile
from .tools import DEFINITIONS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema (draft 2020-12) that accepts the same files as `retold validate`, except for references, templates
    and the options that only one engine has.

    `stream_handler_opts` accepts the options of all handlers; only `validate` checks which handler has which option.
    """
    schema = WorkflowFile.model_json_schema()
    handlers: dict[str, Any] = {}
    known: dict[str, Any] = {}
    for name, handler in HANDLERS.items():
        made = handler.Options.model_json_schema()
        schema["$defs"] |= made.get("$defs", {})
        # A required option may be in stream_handler_opts or in the defaults, so nothing is required here.
        own = {
            option: {key: value for key, value in said.items() if key not in ("default", "title")}
            for option, said in made["properties"].items()
        }
        handlers[name] = {**_mapping(own), "description": " ".join((handler.__doc__ or "").split())}
        for option, said in own.items():
            known.setdefault(option, {**said, "description": "Of"})
            known[option]["description"] += f" {name}"
    spec = {"anyOf": [{"enum": list(HANDLERS)}, {**_mapping(handlers), "minProperties": 1}]}
    options = schema["$defs"]["ClaudeOptions"]["properties"]
    options["stream_handler"] = {
        "description": "A handler by name, {name: options}, or a list of such.",
        "anyOf": [*spec["anyOf"], {"type": "array", "items": spec, "minItems": 1}, {"type": "null"}],
    }
    options["stream_handler_opts"] = {
        "description": "Options of the handlers that stream_handler names.",
        "anyOf": [_mapping(known), {"type": "null"}],
    }
    _describe(schema["$defs"])
    schema["$defs"]["Workflow"] |= _tools_of_engines()
    return {"$schema": DIALECT, "$id": "retold-workflow.schema.json", **schema, "title": "retold workflow"}


def _describe(definitions: dict[str, Any]) -> None:
    """Give each key the text that its table in docs/workflows.md has."""
    steps = {step.__name__: OF_STEP for step in STEPS.values()}
    for name, texts in ({"Workflow": OF_WORKFLOW, "ClaudeOptions": OF_OPTIONS} | steps).items():
        for key, text in texts.items():
            holder = definitions[name]
            outer, _, inner = key.rpartition(".")
            if outer:
                one = holder["properties"][outer]
                (one,) = one.get("allOf", [one])  # pydantic before 2.9 puts a reference with a default in a list
                holder = definitions[one["$ref"].rpartition("/")[2]]
            if inner in holder["properties"]:  # steps with tasks have no prompt
                holder["properties"][inner].setdefault("description", text)


def _tools_of_engines() -> dict[str, Any]:
    """Return the condition that a workflow without a step on Claude Code names only tools of the Messages API."""
    is_claude_code = {"properties": {"engine": {"const": "claude_code"}}, "required": ["engine"]}
    steps = {"properties": {"steps": {"contains": is_claude_code}}, "required": ["steps"]}
    known = {"items": {"enum": list(DEFINITIONS)}}
    options = {"properties": {"claude_options": {"properties": {"allowed_tools": known, "disallowed_tools": known}}}}
    step = {**options, "properties": {**options["properties"], "parallel_tasks": {"items": options}}}
    return {
        "if": {"not": {"anyOf": [is_claude_code, steps]}},
        "then": {"properties": {"steps": {"items": step}, "defaults": options}},
    }


def _mapping(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a mapping with only these keys, or null."""
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
