"""Wrong references in a workflow or a command line: templates, steps, handlers, options, runs."""

from pathlib import Path
from textwrap import dedent

import pytest

from tests.conftest import Cli
from tests.e2e import NUMBERS, STEP, in_this_process, refusal_of, refused, run_mock, tree

# Templates and steps


def test_an_unknown_template_variable_names_the_nearest(cli: Cli) -> None:
    """A misspelt variable is an error before anything runs, with the nearest valid variable."""
    error = refusal_of("prompt: |\n  This is\n  run {{execution_ids}}.\n", run=cli)
    assert error == "retold: w.yaml:6:7: unknown template variable 'execution_ids'; did you mean 'execution_id'?\n"


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("workflow.nam", "unknown template variable 'workflow.nam'; did you mean 'name'?"),
        ("step.nme", "unknown template variable 'step.nme'; did you mean 'name'?"),
        ("steps.first.txt", "a step has no 'txt'; did you mean 'text'?"),
        ("global_vars.citty", "unknown template variable 'global_vars.citty'; did you mean 'city'?"),
    ],
)
def test_an_unknown_field_of_a_variable_names_the_nearest(template: str, error: str) -> None:
    """A misspelt field is found before anything runs, with the nearest valid field."""
    text = STEP.replace("greet\n", "first\n").replace("  steps:", "  global_vars: {city: Paris}\n  steps:")
    text += f"      prompt: x\n    - {{name: b, type: claude, prompt: '{{{{{template}}}}}'}}\n"
    assert refusal_of(text) == f"retold: w.yaml:8:31: {error}\n"


def test_a_template_syntax_error_has_a_place() -> None:
    """The error has its line and the missing part."""
    error = refusal_of("prompt: 'Hello {{ execution_id'\n")
    assert error == "retold: w.yaml:6:7: template error: unexpected end of template, expected 'end of print statement'.\n"


@pytest.mark.parametrize("prompt", ["'{{steps.later.text}}'", "[{type: previous_response, step: later}]"])
def test_a_reference_to_a_later_step_is_refused(prompt: str) -> None:
    """A step can use only the answers of earlier steps."""
    error = refusal_of(STEP + f"      prompt: {prompt}\n    - {{name: later, type: claude, prompt: x}}\n")
    assert error.partition(": step ")[2] == "'later' does not come before this one.\n"
    assert error.startswith("retold: w.yaml:6:")


@pytest.mark.parametrize("prompt", ["'{{steps.furst.text}}'", "[{type: previous_response, step: furst}]"])
def test_a_reference_to_an_unknown_step_names_the_nearest(prompt: str) -> None:
    """A misspelt step is reported with the nearest earlier step."""
    error = refusal_of(
        STEP.replace("greet\n", "first\n") + f"      prompt: x\n    - {{name: b, type: claude, prompt: {prompt}}}\n"
    )
    assert error.partition(": unknown ")[2] == "step 'furst'; did you mean 'first'?\n"
    assert error.startswith("retold: w.yaml:7:")


def test_an_unknown_variable_in_the_defaults_is_found_before_anything_runs() -> None:
    """Defaults are strings of every step, so their variables are checked like those of a step."""
    defaults = "  defaults: {claude_options: {system_prompt: '{{nope}}'}}\n"
    error = refusal_of(STEP.replace("  steps:", defaults + "  steps:") + "      prompt: x\n")
    assert error.startswith("retold: w.yaml:3:")


# Handlers


def test_an_unknown_handler_names_the_nearest() -> None:
    """A misspelt handler is reported with the nearest valid handler."""
    error = refusal_of("prompt: x\nclaude_options:\n  async_streaming: true\n  stream_handler: smple\n")
    assert error == "retold: w.yaml:9:9: unknown handler 'smple'; did you mean 'simple'?\n"


def test_an_unknown_handler_option_names_the_nearest() -> None:
    """A misspelt handler option is reported with its place and the nearest valid option."""
    error = refusal_of(
        """\
        prompt: x
        claude_options:
          async_streaming: true
          stream_handler: simple
          stream_handler_opts:
            show_tool_uses: true
        """,
    )
    assert error == "retold: w.yaml:11:11: handler 'simple' has no option 'show_tool_uses'; did you mean 'show_tool_use'?\n"


def test_a_handler_option_of_the_wrong_type_is_refused() -> None:
    """A handler option is not converted."""
    options = "{async_streaming: true, stream_handler: [debug, {simple: {show_tool_use: 'no'}}]}"
    error = refusal_of(f"prompt: x\nclaude_options: {options}\n")
    assert error == "retold: w.yaml:7:81: handler 'simple': option 'show_tool_use' should be true or false, and is 'no'.\n"


def test_a_handler_without_streaming_is_refused() -> None:
    """A handler that would never be called is an error that names the missing option."""
    error = refusal_of("prompt: x\nclaude_options:\n  stream_handler: simple\n")
    expected = "retold: w.yaml:8:9: 'stream_handler' does nothing without streaming; add `async_streaming: true` beside it.\n"
    assert error == expected


def test_a_handler_without_a_name_is_refused() -> None:
    """An empty mapping is an error, and not silently ignored."""
    assert "stream_handler" in refusal_of("prompt: x\nclaude_options: {async_streaming: true, stream_handler: {}}\n")


# The command line


def test_a_misspelt_command_names_the_nearest(cli: Cli) -> None:
    """The error names the nearest valid command."""
    error = refused(cli("rnu", NUMBERS))
    assert error.splitlines()[-1] == "Error: No such command 'rnu'. Did you mean 'run'?"


def test_an_unknown_test_mode_is_refused(cli: Cli) -> None:
    """TEST_MODE is live or mock. Any other value is an error, and never used as one of them."""
    error = refused(cli("run", NUMBERS, env={"TEST_MODE": "prod"}))
    assert error == "retold: unknown TEST_MODE 'prod': set it to mock (the default, offline) or live, or unset it.\n"
    assert not Path(".retold").exists()


@pytest.mark.parametrize(("command", "timing"), [("run", "fast"), ("run", "0x"), ("play", "-2x")])
def test_an_unknown_timing_lists_the_known_ones(command: str, timing: str) -> None:
    """A wrong pace is refused before anything runs."""
    error = refused(in_this_process(command, NUMBERS, "--timing", timing))
    expected = f"retold: unknown timing '{timing}': give instant, original, or a factor such as 2x (twice as fast) or 0.5x.\n"
    assert error == expected


@pytest.mark.parametrize("limit", ["soon", "-1s"])
def test_a_wrong_idle_limit_is_refused_with_the_valid_form(limit: str) -> None:
    """A wrong duration is refused before anything runs."""
    error = refused(in_this_process("run", NUMBERS, "--idle-limit", limit))
    assert error == f"retold: unknown duration '{limit}': give for example 2s, 500ms or 1.5m.\n"
    assert not Path(".retold").exists()


@pytest.mark.parametrize("command", [("run", str(NUMBERS)), ("show", "last"), ("play", "last"), ("tail",)])
def test_an_unknown_handler_on_the_command_line_names_the_nearest(command: tuple[str, ...]) -> None:
    """Every command refuses a misspelt --handler, and names the nearest valid one."""
    assert (
        refused(in_this_process(*command, "--handler", "consol")) == "retold: unknown handler 'consol'; did you mean 'console'?\n"
    )


# Runs


@pytest.mark.parametrize(
    "command", [("show", "last"), ("play", "last"), ("export", "last"), ("tail",), ("tail", "last"), ("ls",)]
)
def test_a_missing_log_names_the_way_to_record_one(command: tuple[str, ...]) -> None:
    """Reading a missing log does not create it, and the error names the commands that do."""
    expected = (
        "retold: no log at .retold/log.db. Record or replay something first (retold run …), or name a log with --db FILE.\n"
    )
    assert refused(in_this_process(*command)) == expected
    assert not Path(".retold").exists()


@pytest.mark.parametrize("command", ["show", "play", "tail", "export"])
def test_an_unknown_run_names_the_command_that_lists_runs(command: str) -> None:
    """The error names the missing run."""
    run_mock(NUMBERS, handlers=[])
    error = refused(in_this_process(command, "nope"))
    assert error == "retold: no run 'nope' in the log .retold/log.db. `retold ls` lists them; `last` is the newest.\n"


def test_a_run_before_the_first_is_refused() -> None:
    """The error for `last~N` beyond the first run counts the runs."""
    run_mock(NUMBERS, handlers=[])
    assert refused(in_this_process("show", "last~1")) == "retold: no run 'last~1': the log .retold/log.db holds 1 run.\n"


def test_an_empty_run_name_is_an_unknown_run() -> None:
    """An unset shell variable gives an empty argument, which names no run."""
    run_mock(NUMBERS, handlers=[])
    assert refused(in_this_process("show", "")).startswith("retold: no run ''")


@pytest.mark.trap(44)
def test_listing_a_log_without_runs_fails(cli: Cli) -> None:
    """The exit code is 1, and the error names the way to a first run."""
    Path("log.db").touch()
    error = refused(cli("ls", "--db", "log.db"), code=1)
    assert error == "retold: the log holds no runs yet. Record or replay one first: retold run WORKFLOW.\n"


def test_listing_a_log_without_runs_as_json_prints_an_empty_list(cli: Cli) -> None:
    """A script that asks for JSON gets a valid empty list, but still exit code 1."""
    Path("log.db").touch()
    done = cli("ls", "--json", "--db", "log.db")
    assert (done.stdout, done.returncode) == ("[]\n", 1)


def test_no_command_without_arguments_ends_in_a_traceback(cli: Cli) -> None:
    """A command that lacks its argument shows its usage."""
    expected = """\
        Usage: python -m retold show [OPTIONS] {RUN}
        Try 'python -m retold show -h' for help.

        Error: Missing argument 'RUN'.
        """
    assert refused(cli("show")) == dedent(expected)
    assert tree() == []
