"""The texts of `retold schema`: the tables of docs/workflows.md, which a test compares with them."""

OF_WORKFLOW = {
    "name": "letters, digits, spaces, `.`, `-`, `_`; the name of the run and of its cassette",
    "description": "for readers, and `{{workflow.description}}`, `{{workflow.version}}`",
    "version": "for readers, and `{{workflow.description}}`, `{{workflow.version}}`",
    "steps": "in the order they run; the first failed step ends the run",
    "engine": "the program that holds the conversations of the steps: `messages_api` or `claude_code` (default: `messages_api`)",
    "workspace_dir": "folder for tools; created if a live run needs it (default: working directory)",
    "cassette": (
        "beside the workflow file or beside its folder; your own path is relative to the workflow's folder (default: "
        "`cassettes/<name>.yaml`)"
    ),
    "environment.mode": "`development`, `production` or `test`: the preset of `claude_smart` steps that name none",
    "defaults.claude_options": "options for every step; a step's own options take precedence",
    "defaults.claude_preset": "a preset; both kinds of options take precedence over it",
    "defaults.output_dir": "folder for `output_to_file` (default: working directory)",
    "global_vars": "values for `{{global_vars.NAME}}`",
    "checkpoint_enabled": "the next run resumes an interrupted run (default: `false`)",
    "checkpoint_dir": "folder for the name of the run in progress (default: `.retold/checkpoints`)",
}
"""Keys of a workflow, with those of its mappings."""

OF_STEP = {
    "name": "required; names are unique",
    "type": "required; names are unique",
    "prompt": "a text, or a list of parts",
    "claude_options": "options of the conversation and of its output",
    "engine": "`messages_api` or `claude_code`; the default is that of the workflow",
    "condition": (
        "an expression such as `\"'yes' in steps.check.text\"`; if it is false, the step is skipped; a comparison with an "
        "unknown cost is false"
    ),
    "output_to_file": "file for the step's text; with `output_format: json` for its result, with `stream_json` for its messages",
    "description": "for readers",
}
"""Keys that every step has."""

OF_OPTIONS = {
    "model": "`sonnet`, `opus`, `haiku` select current ids; any other name goes to the API unchanged (default: `sonnet`)",
    "fallback_model": "used if the model cannot answer (404, 429, 500, 503, 529, after retries)",
    "max_turns": "requests in one conversation; if they are used up, the step fails (default: 10)",
    "max_tokens": "limit for one answer (default: 8192)",
    "system_prompt": "joined by a blank line",
    "append_system_prompt": "joined by a blank line",
    "temperature": "0 to 1",
    "allowed_tools": "`Read Write Edit Bash Glob Grep`, confined to `workspace_dir`; no tool unless allowed (default: none)",
    "disallowed_tools": "`Read Write Edit Bash Glob Grep`, confined to `workspace_dir`; no tool unless allowed (default: none)",
    "permission_mode": "`plan` leaves out Write, Edit and Bash (default: `default`)",
    "cwd": "a folder inside `workspace_dir`",
    "timeout_ms": "limit for a whole conversation",
    "retry_config": (
        "repeats a request that was refused, rate limited or overloaded, or that ended in a broken stream; strategies "
        "`exponential`, `linear`, `constant`; the `retry-after` of an answer takes precedence (default: `{max_retries: 2, "
        "backoff_strategy: exponential, base_delay_ms: 500}`)"
    ),
    "session_id": "the id in the messages (default: a new one)",
    "output_format": "content of `output_to_file`: `text`, `json`, `stream_json` (default: `text`)",
    "async_streaming": "show complete messages as they arrive (default: `false`)",
    "stream_handler": "see handlers (default: `simple`)",
    "stream_handler_opts": "see handlers (default: `simple`)",
    "cost_tracking": "`false` leaves costs out (default: `true`)",
    "verbose": "prints the end of each turn on stderr (default: `false`)",
}
"""Options of a conversation."""
