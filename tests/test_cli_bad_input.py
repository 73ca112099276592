"""Mistakes in a workflow file cause one clear error on stderr with its place, exit code 2, and no other effect."""

from pathlib import Path
from textwrap import dedent

import pytest

from tests import forks
from tests.conftest import Cli
from tests.e2e import STEP, in_this_process, refusal_of, refused

# The file


def test_a_missing_workflow_file_is_named(cli: Cli) -> None:
    """The error repeats the name as typed."""
    assert refused(cli("run", "examples/nope.yaml")) == "retold: no workflow file examples/nope.yaml.\n"


def test_a_folder_in_place_of_a_workflow_is_refused() -> None:
    """A folder is not a workflow file, and the error does not call it missing."""
    Path("folder").mkdir()
    assert (
        refused(in_this_process("run", "folder"))
        == "retold: cannot read the workflow folder: it is a folder; name a file in it.\n"
    )


def test_a_yaml_syntax_error_has_file_line_and_column() -> None:
    """Invalid YAML is reported at the place where the parser stopped."""
    Path("w.yaml").write_text("workflow:\n  name: [unclosed\n  steps: 1\n")
    expected = "retold: w.yaml:3:8: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']'.\n"
    assert refused(in_this_process("run", "w.yaml")) == expected


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n"])
def test_an_empty_file_is_called_empty(text: str) -> None:
    """A file without content is called empty, not invalid."""
    Path("w.yaml").write_text(text)
    assert refused(in_this_process("run", "w.yaml")) == "retold: w.yaml: the workflow is empty.\n"


LIST = "this is a list of steps; a workflow file has them below `workflow:` with a `name` and `steps:`."
NO_MAPPING = "a workflow file holds a key `workflow` with `name` and `steps`."


@pytest.mark.parametrize(("text", "error"), [("hello\n", NO_MAPPING), ("- a\n- b\n", LIST)])
def test_a_file_that_is_not_a_mapping_is_refused(text: str, error: str) -> None:
    """The error of a YAML file of another kind describes a workflow file."""
    Path("w.yaml").write_text(text)
    expected = f"retold: w.yaml:1:1: {error}\n"
    assert refused(in_this_process("run", "w.yaml")) == expected


def test_a_binary_file_is_refused() -> None:
    """A file that is not UTF-8 text is refused in one line."""
    Path("w.yaml").write_bytes(b"\xff\xfe\x00")
    assert refused(in_this_process("run", "w.yaml")).startswith("retold: cannot read the workflow w.yaml: ")


def test_a_python_tag_is_refused() -> None:
    """A YAML tag for a Python object is an error with its place, and creates nothing."""
    error = refusal_of("workflow: !!python/object/apply:os.system ['touch pwned']\n")
    assert error.startswith("retold: w.yaml:1:11: not valid YAML: could not determine a constructor")


def test_an_alias_that_contains_itself_is_refused() -> None:
    """A YAML alias inside its own value is an error, not a traceback."""
    assert refusal_of("workflow: &a\n  name: *a\n").startswith("retold: w.yaml:")


def test_a_yaml_bomb_is_refused(environment: dict[str, str]) -> None:
    """Aliases of aliases that grow without bound are refused before they are expanded."""
    lines = ["  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    error = refusal_of(
        "workflow:\n" + "\n".join(lines) + "\n", run=lambda *args: forks.run("-c", TWO_SECONDS, *args, env=environment)
    )
    assert len(error) < 10_000


TWO_SECONDS = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (2, 2)); from retold.cli import main; main()"


# Keys


def test_an_unknown_key_of_the_workflow_names_the_nearest() -> None:
    """A misspelt key at the top is reported with its line and the nearest valid key."""
    error = refusal_of("workflow:\n  name: a\n  worksapce_dir: x\n  steps: [{name: s, type: claude, prompt: x}]\n")
    assert error == "retold: w.yaml:3:3: unknown key 'worksapce_dir'; did you mean 'workspace_dir'?\n"


def test_an_unknown_key_of_a_step_names_the_nearest() -> None:
    """A misspelt key of a step is reported with its line and the nearest valid key."""
    error = refusal_of("prompt: x\noutput_file: x.txt\n")
    assert error == "retold: w.yaml:7:7: unknown key 'output_file'; did you mean 'output_to_file'?\n"


def test_an_unknown_key_of_the_options_names_the_nearest() -> None:
    """A misspelt Claude option is reported with its line and the nearest valid option."""
    error = refusal_of("prompt: x\nclaude_options:\n  max_turn: 3\n")
    assert error == "retold: w.yaml:8:9: unknown key 'max_turn'; did you mean 'max_turns'?\n"


def test_an_unknown_key_without_a_near_one_lists_the_valid_keys() -> None:
    """The error lists the valid keys if none is similar."""
    error = refusal_of("prompt: x\nclaude_options: {retry_config: {zzz: 3}}\n")
    assert error == "retold: w.yaml:7:39: unknown key 'zzz'; there are max_retries, backoff_strategy, base_delay_ms.\n"


def test_a_missing_prompt_names_the_step() -> None:
    """A step without a prompt is reported with its name and line."""
    assert refusal_of("description: x\n") == "retold: w.yaml:4:7: step 'greet': the key 'prompt' is missing.\n"


def test_missing_names_are_reported_with_their_lines() -> None:
    """A workflow and a step without a name are both reported."""
    expected = """\
        retold: 2 errors in the workflow:
        w.yaml:1:1: the key 'name' is missing.
        w.yaml:3:7: the key 'name' is missing.
        """
    assert refusal_of("workflow:\n  steps:\n    - type: claude\n      prompt: x\n") == dedent(expected)


def test_a_missing_workflow_key_is_reported() -> None:
    """The error of steps at the top of the file names the missing key `workflow`."""
    assert "w.yaml:1:1: the key 'workflow' is missing.\n" in refusal_of("steps: []\n")


def test_a_duplicate_key_is_reported_at_its_second_place() -> None:
    """YAML would use the last of them."""
    assert refusal_of("prompt: x\nprompt: y\n") == "retold: w.yaml:7:7: the key 'prompt' is there twice.\n"


def test_an_option_without_an_effect_is_refused_with_the_reason() -> None:
    """An option of the original without a meaning is refused with one sentence."""
    expected = (
        "retold: w.yaml:8:9: 'stream_buffer_size' does nothing here: a message is shown as soon as it is complete, so there "
        "is no buffer to size. Remove it.\n"
    )
    assert refusal_of("prompt: x\nclaude_options:\n  stream_buffer_size: 10\n") == expected


# Values


def test_an_unknown_step_type_names_the_nearest() -> None:
    """A misspelt step type is reported with the nearest valid type."""
    error = refusal_of(STEP.replace("claude", "cluade") + "      prompt: x\n")
    assert error == "retold: w.yaml:5:7: unknown step type 'cluade'; did you mean 'claude'?\n"


def test_wrong_types_are_reported_with_the_expected_ones() -> None:
    """The error names the expected type and the actual one."""
    expected = """\
        retold: 3 errors in the workflow:
        w.yaml:8:9: 'max_turns' should be a whole number, and is 'lots'.
        w.yaml:9:9: 'temperature' should be less than or equal to 1, and is 3.
        w.yaml:10:9: 'async_streaming' should be true or false, and is 'maybe'.
        """
    error = refusal_of("prompt: x\nclaude_options:\n  max_turns: lots\n  temperature: 3\n  async_streaming: maybe\n")
    assert error == dedent(expected)


def test_an_unknown_tool_names_the_nearest() -> None:
    """A misspelt tool is reported with its option and the nearest valid tool."""
    error = refusal_of("prompt: x\nclaude_options:\n  allowed_tools: [Raed]\n")
    assert error == "retold: w.yaml:8:25: 'allowed_tools' cannot be 'Raed'; did you mean 'Read'?\n"


@pytest.mark.parametrize("value", ["3", "[]", '""', "{type: static, content: x}"])
def test_a_wrong_prompt_is_explained_in_terms_of_the_workflow(value: str) -> None:
    """A prompt of the wrong kind is one error that describes a prompt, without terms of the validator."""
    error = refusal_of(f"prompt: {value}\n")
    assert len(error.splitlines()) == 1
    assert error.startswith("retold: w.yaml:6:7: 'prompt' ")


def test_an_unknown_prompt_part_names_the_nearest() -> None:
    """A misspelt type of a prompt part is reported alone, with the nearest valid type."""
    error = refusal_of("prompt:\n  - {type: previous_reponse, step: x}\n")
    assert error == "retold: w.yaml:7:12: unknown prompt part 'previous_reponse'; did you mean 'previous_response'?\n"


def test_an_empty_list_of_steps_is_explained() -> None:
    """The error uses plain words."""
    error = refusal_of("workflow:\n  name: a\n  steps: []\n")
    assert error == "retold: w.yaml:3:3: 'steps' should have at least 1 item, and is [].\n"


def test_an_empty_workflow_is_explained() -> None:
    """The error of an empty key `workflow` names its content, without terms of the validator."""
    assert "instance of" not in refusal_of("workflow:\n")


@pytest.mark.trap(42)
def test_a_workflow_name_cannot_leave_the_cassette_folder() -> None:
    """A name that is a path is refused, because it becomes the cassette's file name."""
    error = refusal_of("workflow:\n  name: ../../x\n  steps: [{name: s, type: claude, prompt: x}]\n")
    assert error == "retold: w.yaml:2:3: 'name' may hold letters, digits, spaces, '.', '-' and '_', and is '../../x'.\n"


def test_a_long_value_is_shortened() -> None:
    """A wrong value is shown, but not page after page of it."""
    assert len(refusal_of(f"prompt: x\nclaude_options: {{max_turns: '{'long ' * 1000}'}}\n")) < 500


def test_two_steps_of_one_name_are_refused() -> None:
    """The second step of the same name is reported with its place."""
    error = refusal_of(STEP + "      prompt: x\n    - {name: greet, type: claude, prompt: y}\n")
    assert error == "retold: w.yaml:7:8: two steps have the name 'greet'.\n"


def test_all_errors_are_reported_from_top_to_bottom() -> None:
    """A user with three mistakes sees three errors, each with its line."""
    expected = """\
        retold: 3 errors in the workflow:
        w.yaml:4:7: step 'greet': the key 'prompt' is missing.
        w.yaml:6:7: unknown key 'promt'; did you mean 'prompt'?
        w.yaml:8:9: unknown key 'modle'; did you mean 'model'?
        """
    assert refusal_of("promt: x\nclaude_options:\n  modle: opus\n") == dedent(expected)


def test_wrong_keys_and_wrong_references_are_reported_together() -> None:
    """An unknown key does not hide an unknown handler or variable."""
    error = refusal_of("prompt: '{{nope}}'\noutput_file: x\nclaude_options: {async_streaming: true, stream_handler: smple}\n")
    assert error.startswith("retold: 3 errors in the workflow:\n")
