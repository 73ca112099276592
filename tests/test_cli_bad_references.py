"""What a workflow or a command line can refer to wrongly: templates, steps, handlers, options, runs."""

from pathlib import Path
from textwrap import dedent

import pytest

from tests.conftest import Cli
from tests.e2e import NUMBERS, STEP, in_this_process, refusal_of, refused, run_mock, tree

# Templates and steps


def test_unknown_template_variable_names_the_nearest(cli: Cli) -> None:
    """A misspelt variable is an error before anything runs, with the variable that was meant."""
    said = refusal_of("prompt: |\n  This is\n  run {{execution_ids}}.\n", run=cli)
    assert said == "retold: w.yaml:6:7: unknown template variable 'execution_ids'; did you mean 'execution_id'?\n"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("workflow.nam", "unknown template variable 'workflow.nam'; did you mean 'name'?"),
        ("step.nme", "unknown template variable 'step.nme'; did you mean 'name'?"),
        ("steps.first.txt", "a step has no 'txt'; did you mean 'text'?"),
        ("global_vars.citty", "unknown template variable 'global_vars.citty'; did you mean 'city'?"),
    ],
)
def test_unknown_field_of_a_variable_names_the_nearest(template: str, said: str) -> None:
    """A misspelt field is found before anything runs, with the field that was meant."""
    text = STEP.replace("greet\n", "first\n").replace("  steps:", "  global_vars: {city: Paris}\n  steps:")
    text += f"      prompt: x\n    - {{name: b, type: claude, prompt: '{{{{{template}}}}}'}}\n"
    assert refusal_of(text) == f"retold: w.yaml:8:31: {said}\n"


def test_template_syntax_error_has_a_place() -> None:
    """A template that cannot be read is reported with its line and what is missing."""
    said = refusal_of("prompt: 'Hello {{ execution_id'\n")
    assert said == "retold: w.yaml:6:7: template error: unexpected end of template, expected 'end of print statement'.\n"


@pytest.mark.parametrize("prompt", ["'{{steps.later.text}}'", "[{type: previous_response, step: later}]"])
def test_reference_to_a_later_step_is_refused(prompt: str) -> None:
    """A step can use the answers of those before it only."""
    said = refusal_of(STEP + f"      prompt: {prompt}\n    - {{name: later, type: claude, prompt: x}}\n")
    assert said.partition(": step ")[2] == "'later' does not come before this one.\n"
    assert said.startswith("retold: w.yaml:6:")


@pytest.mark.parametrize("prompt", ["'{{steps.furst.text}}'", "[{type: previous_response, step: furst}]"])
def test_reference_to_an_unknown_step_names_the_nearest(prompt: str) -> None:
    """A misspelt step is reported with the earlier one that was meant."""
    said = refusal_of(
        STEP.replace("greet\n", "first\n") + f"      prompt: x\n    - {{name: b, type: claude, prompt: {prompt}}}\n"
    )
    assert said.partition(": unknown ")[2] == "step 'furst'; did you mean 'first'?\n"
    assert said.startswith("retold: w.yaml:7:")


def test_unknown_variable_in_the_defaults_is_found_before_anything_runs() -> None:
    """Defaults are strings of every step: their variables are checked like the step's own."""
    defaults = "  defaults: {claude_options: {system_prompt: '{{nope}}'}}\n"
    said = refusal_of(STEP.replace("  steps:", defaults + "  steps:") + "      prompt: x\n")
    assert said.startswith("retold: w.yaml:3:")


# Handlers


def test_unknown_handler_names_the_nearest() -> None:
    """A misspelt handler is reported with the one that was meant."""
    said = refusal_of("prompt: x\nclaude_options:\n  async_streaming: true\n  stream_handler: smple\n")
    assert said == "retold: w.yaml:9:9: unknown handler 'smple'; did you mean 'simple'?\n"


def test_unknown_handler_option_names_the_nearest() -> None:
    """A misspelt handler option is reported where it stands, with the option that was meant."""
    said = refusal_of(
        """\
        prompt: x
        claude_options:
          async_streaming: true
          stream_handler: simple
          stream_handler_opts:
            show_tool_uses: true
        """,
    )
    assert said == "retold: w.yaml:11:11: handler 'simple' has no option 'show_tool_uses'; did you mean 'show_tool_use'?\n"


def test_wrong_type_of_a_handler_option_is_refused() -> None:
    """A handler option is taken as it is meant or not at all."""
    options = "{async_streaming: true, stream_handler: [debug, {simple: {show_tool_use: 'no'}}]}"
    said = refusal_of(f"prompt: x\nclaude_options: {options}\n")
    assert said == "retold: w.yaml:7:81: handler 'simple': option 'show_tool_use' should be true or false, and is 'no'.\n"


def test_handler_without_streaming_is_told_what_is_missing() -> None:
    """A handler that would never be called is an error that says what to add."""
    said = refusal_of("prompt: x\nclaude_options:\n  stream_handler: simple\n")
    expected = "retold: w.yaml:8:9: 'stream_handler' does nothing without streaming; add `async_streaming: true` beside it.\n"
    assert said == expected


def test_handler_without_a_name_is_refused() -> None:
    """An empty mapping names no handler; that is an error, not silence."""
    assert "stream_handler" in refusal_of("prompt: x\nclaude_options: {async_streaming: true, stream_handler: {}}\n")


# The command line


def test_misspelt_command_names_the_nearest(cli: Cli) -> None:
    """A misspelt command is answered with the one that was meant."""
    said = refused(cli("rnu", NUMBERS))
    assert said.splitlines()[-1] == "Error: No such command 'rnu'. Did you mean 'run'?"


def test_unknown_test_mode_is_refused(cli: Cli) -> None:
    """TEST_MODE is live or mock; anything else is an error and never taken for one of them."""
    said = refused(cli("run", NUMBERS, env={"TEST_MODE": "prod"}))
    assert said == "retold: unknown TEST_MODE 'prod': set it to mock (the default, offline) or live, or unset it.\n"
    assert not Path(".retold").exists()


@pytest.mark.parametrize(("command", "timing"), [("run", "fast"), ("run", "0x"), ("play", "-2x")])
def test_bad_timing_says_what_there_is(command: str, timing: str) -> None:
    """A pace that is none is refused before anything runs."""
    said = refused(in_this_process(command, NUMBERS, "--timing", timing))
    expected = f"retold: unknown timing '{timing}': give instant, original, or a factor such as 2x (twice as fast) or 0.5x.\n"
    assert said == expected


@pytest.mark.parametrize("limit", ["soon", "-1s"])
def test_bad_idle_limit_says_what_there_is(limit: str) -> None:
    """A duration that is none is refused before anything runs."""
    said = refused(in_this_process("run", NUMBERS, "--idle-limit", limit))
    assert said == f"retold: unknown duration '{limit}': give for example 2s, 500ms or 1.5m.\n"
    assert not Path(".retold").exists()


@pytest.mark.parametrize("command", [("run", str(NUMBERS)), ("show", "last"), ("play", "last"), ("tail",)])
def test_unknown_handler_on_the_command_line_names_the_nearest(command: tuple[str, ...]) -> None:
    """A misspelt --handler is refused with the one that was meant, whatever the command."""
    assert (
        refused(in_this_process(*command, "--handler", "consol")) == "retold: unknown handler 'consol'; did you mean 'console'?\n"
    )


# Runs


@pytest.mark.parametrize(
    "command", [("show", "last"), ("play", "last"), ("export", "last"), ("tail",), ("tail", "last"), ("ls",)]
)
def test_missing_log_says_how_to_get_one(command: tuple[str, ...]) -> None:
    """Reading where no log is makes none, and says what would."""
    expected = (
        "retold: no log at .retold/log.db. Record or replay something first (retold run …), or name a log with --db FILE.\n"
    )
    assert refused(in_this_process(*command)) == expected
    assert not Path(".retold").exists()


@pytest.mark.parametrize("command", ["show", "play", "tail", "export"])
def test_unknown_run_says_how_to_list_them(command: str) -> None:
    """A run that is not in the log is named, with where to look."""
    run_mock(NUMBERS, handlers=[])
    said = refused(in_this_process(command, "nope"))
    assert said == "retold: no run 'nope' in the log .retold/log.db. `retold ls` lists them; `last` is the newest.\n"


def test_run_further_back_than_there_are_is_refused() -> None:
    """`last~N` beyond the first run says how many there are."""
    run_mock(NUMBERS, handlers=[])
    assert refused(in_this_process("show", "last~1")) == "retold: no run 'last~1': the log .retold/log.db holds 1 run.\n"


def test_empty_name_of_a_run_is_an_unknown_run() -> None:
    """An empty argument, as an unset shell variable gives, names no run."""
    run_mock(NUMBERS, handlers=[])
    assert refused(in_this_process("show", "")).startswith("retold: no run ''")


@pytest.mark.trap(44)
def test_log_without_runs_is_not_success(cli: Cli) -> None:
    """Nothing to list is exit code 1 with the way to a first run."""
    Path("log.db").touch()
    said = refused(cli("ls", "--db", "log.db"), code=1)
    assert said == "retold: the log holds no runs yet. Record or replay one first: retold run WORKFLOW.\n"


def test_log_without_runs_lists_as_empty_json(cli: Cli) -> None:
    """A script that asks for JSON gets a valid empty list, and still exit code 1."""
    Path("log.db").touch()
    done = cli("ls", "--json", "--db", "log.db")
    assert (done.stdout, done.returncode) == ("[]\n", 1)


def test_no_traceback_for_any_command_without_arguments(cli: Cli) -> None:
    """A command that lacks its argument shows its usage."""
    expected = """\
        Usage: python -m retold show [OPTIONS] {RUN}
        Try 'python -m retold show -h' for help.

        Error: Missing argument 'RUN'.
        """
    assert refused(cli("show")) == dedent(expected)
    assert tree() == []
