"""Mistakes in each type of step: every one is reported with its place and the valid form."""

from pathlib import Path
from textwrap import dedent, indent

import pytest

from retold.workflow.step_types import STEP_TYPES
from tests.e2e import in_this_process, refusal_of, refused


def refusal_of_step(type: str, body: str) -> str:
    """Return the error of a workflow with one step `a` of that type, without its `retold: w.yaml:`.

    The step's keys begin in line 6.
    """
    head = f"workflow:\n  name: w\n  steps:\n    - name: a\n      type: {type}\n"
    error = refusal_of(head + indent(dedent(body), " " * 6))
    return error.removeprefix("retold: ").replace("w.yaml:", "")


MISSING = {
    "claude": ["prompt"],
    "claude_smart": ["prompt"],
    "claude_session": ["session_config", "prompt"],
    "claude_batch": ["tasks"],
    "claude_extract": ["prompt"],
    "claude_robust": ["prompt"],
    "parallel_claude": ["parallel_tasks"],
}


@pytest.mark.parametrize("type", STEP_TYPES)
def test_a_step_names_every_missing_key(type: str) -> None:
    """Each type names its own missing keys."""
    error = refusal_of_step(type, "description: x\n")
    assert [line for line in error.splitlines() if "errors in" not in line] == [
        f"4:7: step 'a': the key '{key}' is missing." for key in MISSING[type]
    ]


@pytest.mark.parametrize(
    ("type", "body", "error"),
    [
        ("claude_smart", "prompt: x\npreset: devlopment", "7:7: 'preset' cannot be 'devlopment'; did you mean 'development'?"),
        ("claude_session", "prompt: x\nsession_config: {persist: true}", "7:7: step 'a': the key 'session_name' is missing."),
        (
            "claude_session",
            "prompt: x\nsession_name: b\nsession_config: {session_name: b}",
            "7:7: unknown key 'session_name'; it belongs under 'session_config'.",
        ),
        (
            "claude_batch",
            "tasks: [{id: b}]",
            "6:15: task 'b' has nothing to ask; give it a 'prompt' or a 'file', or the step a 'prompt'.",
        ),
        ("claude_batch", "tasks: [{id: b, promt: x}]", "6:23: unknown key 'promt'; did you mean 'prompt'?"),
        ("claude_batch", "tasks: [{id: b, prompt: x}, {id: b, prompt: y}]", "6:36: two tasks have the id 'b'."),
        ("claude_batch", "tasks: [b]", "6:15: a task should be a mapping (lines of `key: value`), and is 'b'."),
        ("claude_batch", "tasks: []", "6:7: 'tasks' should have at least 1 item, and is []."),
        (
            "claude_batch",
            "tasks: [{prompt: x}]\nbatch_config: {max_paralel: 3}",
            "7:22: unknown key 'max_paralel'; did you mean 'max_parallel'?",
        ),
        (
            "claude_batch",
            "tasks: [{prompt: x}]\nmax_parallel: 3",
            "7:7: unknown key 'max_parallel'; it belongs under 'batch_config'.",
        ),
        (
            "claude_extract",
            "prompt: x\nextraction_config: {format: yaml}",
            "7:27: 'format' cannot be 'yaml'; there are text, json, structured, summary, markdown.",
        ),
        (
            "claude_extract",
            "prompt: x\nextraction_config: {post_processing: [code_block]}",
            "7:45: 'post_processing' cannot be 'code_block'; did you mean 'code_blocks'?",
        ),
        (
            "claude_extract",
            "prompt: x\nextraction_config: {post_processing: links}",
            "7:27: 'post_processing' should be a list, and is 'links'.",
        ),
        (
            "claude_robust",
            "prompt: x\nretry_config: {backoff_strategy: exponentail}",
            "7:22: 'backoff_strategy' cannot be 'exponentail'; did you mean 'exponential'?",
        ),
        (
            "claude_robust",
            "prompt: x\nretry_config: {retry_conditions: [rate_limt]}",
            "7:41: 'retry_conditions' cannot be 'rate_limt'; did you mean 'rate_limit'?",
        ),
        (
            "claude_robust",
            "prompt: x\nretry_config: {fallback: fail}",
            "7:22: unknown key 'fallback'; did you mean 'fallback_action'?",
        ),
        (
            "claude_robust",
            "prompt: x\nretry_config: {max_retries: -1}",
            "7:22: 'max_retries' should be greater than or equal to 0, and is -1.",
        ),
        ("parallel_claude", "parallel_tasks: [{prompt: x}]", "6:24: step 'a': the key 'id' is missing."),
        (
            "parallel_claude",
            "parallel_tasks: [{id: b, prompt: x, claude_options: {max_turns: 0}}]",
            "6:60: 'max_turns' should be greater than or equal to 1, and is 0.",
        ),
        ("claude", "prompt: x\nasync_streaming: true", "7:7: unknown key 'async_streaming'; it belongs under 'claude_options'."),
        ("claude", "prompt: x\npreset: chat", "7:7: unknown key 'preset'; it is a key of claude_smart."),
        ("claude", "prompt: [hello]", "6:16: a prompt part should be a mapping (lines of `key: value`), and is 'hello'."),
        ("claude", "prompt: [{type: file}]", "6:16: step 'a': the key 'path' is missing."),
        ("claude", "prompt: ' '", "6:7: 'prompt' should be something, not empty."),
    ],
)
def test_a_mistake_in_a_step_is_reported_with_the_nearest_valid_form(type: str, body: str, error: str) -> None:
    """One mistake is one line: its place, its key, and the valid form."""
    assert refusal_of_step(type, body) == f"{error}\n"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("max_turns: '10'", "'max_turns' should be a whole number, and is '10'"),
        ("max_turns: true", "'max_turns' should be a whole number, and is true"),
        ("max_turns: 1.5", "'max_turns' should be a whole number, and is 1.5"),
        ("async_streaming: 'yes'", "'async_streaming' should be true or false, and is 'yes'"),
        ("temperature: .nan", "'temperature' should be less than or equal to 1, and is NaN"),
        ("model: 4", "'model' should be text, and is 4"),
        ("allowed_tools: Read", "'allowed_tools' should be a list, and is 'Read'"),
        ("retry_config: 3", "'retry_config' should be a mapping (lines of `key: value`), and is 3"),
        ("permission_mode: acceptedits", "'permission_mode' cannot be 'acceptedits'; did you mean 'acceptEdits'?"),
        ("stream_handler: 5", "'stream_handler' should be a handler's name, {name: options}, or a list, and is 5"),
        ("3: 4", "a key should be text, and is 3"),
    ],
)
def test_an_option_of_the_wrong_type_names_the_expected_type(value: str, error: str) -> None:
    """Nothing is converted: a number in quotes is text, and a truth value is not a number."""
    refused = refusal_of_step("claude", f"prompt: x\nclaude_options:\n  {value}\n")
    assert refused.partition(": ")[2] == (f"{error}\n" if error.endswith("?") else f"{error}.\n")


def test_a_value_of_several_possible_types_is_one_error() -> None:
    """A value that should be text or a number, and is neither, is reported once."""
    error = refusal_of("workflow:\n  name: w\n  global_vars: {a: [1]}\n  steps: [{name: a, type: claude, prompt: x}]\n")
    assert error == "retold: w.yaml:3:17: 'a' should be text, a whole number, a number or true or false, and is [1].\n"


def test_every_mistake_is_reported_from_top_to_bottom() -> None:
    """Keys, values, references, presets, handlers and their options: thirteen mistakes cause thirteen errors."""
    Path("broken.py").write_text("import nothing_such\n")
    text = """\
        workflow:
          name: w
          environment: {mode: prodution}
          workspace_dir: "ws/{{date}}"
          defaults:
            claude_preset: prod
          steps:
            - name: first
              type: claude_smart
              preset: tests
              prompt: "{{steps.second.text}}"
            - name: second
              type: claude_batch
              tasks:
                - {prompt: "{{dat}}"}
                - file: "{{steps['first'].txt}}"
              claude_options:
                async_streaming: true
                stream_handler: [smple, {callback: {module: broken, function: f}}, {buffer: {max_sise: 3, drop: first}}]
            - name: first
              type: cluade
    """
    expected = """\
        retold: 13 errors in the workflow:
        w.yaml:3:17: 'mode' cannot be 'prodution'; did you mean 'production'?
        w.yaml:4:3: 'workspace_dir' is used literally; templates work in steps and in defaults.
        w.yaml:6:5: 'claude_preset' cannot be 'prod'; there are development, production, analysis, chat, test.
        w.yaml:10:7: 'preset' cannot be 'tests'; did you mean 'test'?
        w.yaml:11:7: step 'second' does not come before this one.
        w.yaml:15:12: unknown template variable 'dat'; did you mean 'date'?
        w.yaml:16:11: a step has no 'txt'; did you mean 'text'?
        w.yaml:19:26: unknown handler 'smple'; did you mean 'simple'?
        w.yaml:19:45: handler 'callback': module 'broken' does not import: ModuleNotFoundError: No module named 'nothing_such'.
        w.yaml:19:86: handler 'buffer' has no option 'max_sise'; did you mean 'max_size'?
        w.yaml:19:99: handler 'buffer': option 'drop' cannot be 'first'; there are oldest, newest.
        w.yaml:20:7: two steps have the name 'first'.
        w.yaml:21:7: unknown step type 'cluade'; did you mean 'claude'?
        """
    Path("w.yaml").write_text(dedent(text))
    error = refused(in_this_process("run", "w.yaml"))
    assert error == dedent(expected)


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{steps['nope'].text}}", "unknown step 'nope'; there are my-step, batch"),
        ("{{steps.my-step.text}}", "unknown step 'my'; write steps['my-step'] for a name that holds a dash"),
        ("{{steps.a.text}}", "step 'a' does not come before this one"),
        ("{{steps.batch.tasks.tow.text}}", "step 'batch' has no task 'tow'; did you mean 'two'?"),
        ("{{steps.batch.tasks.two.txt}}", "a task has no 'txt'; did you mean 'text'?"),
        ("{{date|uper}}", "unknown template filter 'uper'; did you mean 'upper'?"),
        ("{% if date is defind %}x{% endif %}", "unknown template test 'defind'; did you mean 'defined'?"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_found_before_anything_runs(template: str, error: str) -> None:
    """Names, tasks, filters and tests are checked in the file, not after three paid steps."""
    text = f"""\
        workflow:
          name: w
          steps:
            - {{name: my-step, type: claude, prompt: x}}
            - {{name: batch, type: claude_batch, tasks: [{{id: one, prompt: x}}, {{id: two, prompt: x}}]}}
            - {{name: a, type: claude, prompt: "{template}"}}
    """
    assert refusal_of(dedent(text)) == f"retold: w.yaml:6:31: {error}{'' if error.endswith('?') else '.'}\n"


@pytest.mark.parametrize("key", ["name", "id"])
def test_a_name_cannot_contain_a_template(key: str) -> None:
    """A name that changed with every run would match neither its recording nor its reference."""
    steps = {"name": '{name: "a{{date}}", type: claude, prompt: x}',
             "id": '{name: a, type: claude_batch, tasks: [{id: "a{{date}}", prompt: x}]}'}  # fmt: skip
    error = refusal_of(f"workflow:\n  name: w\n  steps: [{steps[key]}]\n")
    assert error.partition(": ")[2].endswith(f"'{key}' is used literally; it cannot hold a template.\n")


@pytest.mark.parametrize(("session", "error"), [("tlak", "; did you mean 'talk'?"), ("nope", "; there are talk.")])
def test_a_session_of_no_earlier_step_is_refused(session: str, error: str) -> None:
    """`session_context` names a session of an earlier step."""
    text = f"""\
        workflow:
          name: w
          steps:
            - {{name: a, type: claude_session, session_config: {{session_name: talk}}, prompt: x}}
            - {{name: b, type: claude, prompt: [{{type: session_context, session_id: {session}}}]}}
    """
    assert refusal_of(dedent(text)) == f"retold: w.yaml:5:64: unknown session '{session}'{error}\n"


# Handlers


MODULES = {
    "broken": "import nothing_such\n",
    "syntax": "def f(:\n",
    "exits": "raise SystemExit(0)\n",
    "fine": "value = 3\ndef process(message): ...\n",
}


@pytest.mark.parametrize(
    ("options", "column", "error"),
    [
        ("{module: nope.x, function: f}", 31, "no module 'nope.x'; put nope/x.py into {here}, or install it."),
        (
            "{module: broken, function: f}",
            31,
            "module 'broken' does not import: ModuleNotFoundError: No module named 'nothing_such'.",
        ),
        (
            "{module: syntax, function: f}",
            31,
            "module 'syntax' does not import: SyntaxError: invalid syntax (syntax.py, line 1).",
        ),
        ("{module: exits, function: f}", 31, "module 'exits' does not import: SystemExit: 0."),
        ("{module: fine, function: value}", 45, "'value' in module 'fine' is not callable; it is 3."),
        ("{module: fine, function: proces}", 45, "module 'fine' has no function 'proces'; did you mean 'process'?"),
        ("{module: MyApp/Stream, function: f}", 31, "'MyApp/Stream' is not a dotted module name, such as my_app.stream_handler."),
    ],
)
def test_a_callback_that_cannot_be_called_is_refused(options: str, column: int, error: str) -> None:
    """A module that cannot be imported, or a name that is not a function in it, is found before anything runs."""
    for name, source in MODULES.items():
        Path(f"{name}.py").write_text(source)
    head = "workflow:\n  name: w\n  steps:\n    - name: a\n      type: claude\n      prompt: x\n      claude_options:\n"
    keys = f"        async_streaming: true\n        stream_handler: callback\n        stream_handler_opts: {options}\n"
    Path("w.yaml").write_text(head + keys)
    expected = f"retold: w.yaml:10:{column}: handler 'callback': {error.format(here=Path.cwd())}\n"
    assert refused(in_this_process("run", "w.yaml")) == expected
    assert not Path(".retold").exists()


@pytest.mark.parametrize(
    ("handler", "options", "error"),
    [
        ("file", "{append: true}", "handler 'file' needs the option 'file_path'."),
        ("file", "{file_path: w.yaml/x.log}", "handler 'file': cannot write file_path 'w.yaml/x.log': w.yaml is no folder."),
        ("file", "{file_path: .}", "handler 'file': cannot write file_path '.': it is a folder."),
        ("file", "{file_path: x, format: jsnl}", "handler 'file': option 'format' cannot be 'jsnl'; did you mean 'jsonl'?"),
        (
            "file",
            "{file_path: x, max_file_size: big}",
            "handler 'file': option 'max_file_size' should be a number of bytes, or a size such as 10MB, and is 'big'.",
        ),
        (
            "file",
            "{file_path: x, compress: true}",
            "handler 'file': 'compress' gzips the files that are put aside; say when with 'max_file_size'.",
        ),
        ("buffer", "{max_size: lots}", "handler 'buffer': option 'max_size' should be a whole number, and is 'lots'."),
        ("callback", "{function: f}", "handler 'callback' needs the option 'module'."),
        ("console", "{partail: true}", "handler 'console' has no option 'partail'; did you mean 'partial'?"),
        (
            "[simple, debug]",
            "{max_size: 3}",
            "handler 'simple' has no option 'max_size'; there are show_timestamps, show_tool_use, show_tool_results, "
            "show_steps, show_prompts, show_thinking, show_tool_input, partial.",
        ),
    ],
)
def test_a_handler_option_that_cannot_work_is_refused(handler: str, options: str, error: str) -> None:
    """Each handler describes its valid option, before anything runs."""
    keys = f"async_streaming: true, stream_handler: {handler}, stream_handler_opts: {options}"
    line = refusal_of_step("claude", f"prompt: x\nclaude_options: {{{keys}}}\n")
    assert line.partition(": ")[2].replace(f"{Path.cwd()}/", "") == f"{error}\n"


@pytest.mark.parametrize("asks", ["prompt: [{type: file, path: nope.txt}]", "type: claude_batch, tasks: [{file: nope.txt}]"])
def test_a_missing_file_is_reported_before_anything_runs(asks: str) -> None:
    """A prompt of a missing file is refused, unless an earlier step could write the file."""
    kind = "" if "type: claude" in asks else "type: claude, "
    steps = "    - {name: a, type: claude, prompt: x%s}\n    - {name: b, " + kind + asks + "}\n"
    error = refusal_of("workflow:\n  name: w\n  steps:\n" + steps % "")
    assert error.partition(": no file ")[2] == "nope.txt; a relative path counts from the workflow's folder.\n"
    assert error.startswith("retold: w.yaml:5:")
    Path("w.yaml").write_text("workflow:\n  name: w\n  steps:\n" + steps % ", output_to_file: nope.txt")
    assert in_this_process("validate", "w.yaml").returncode == 0
