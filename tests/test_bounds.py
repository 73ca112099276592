"""External input is bounded before it is built: YAML, templates, and paths that are not regular files."""

import os
import socket
from pathlib import Path

import pytest
import yaml

from retold.recorder import bounded_yaml
from retold.recorder.errors import RetoldError, WorkflowError
from retold.recorder.files import NotRegular, read_regular, read_text
from retold.workflow import sandbox
from retold.workflow.templates import Known, problem_in, render

KNOWN = Known({}, [], [])


def grown(levels: int, of: str = "[{}]") -> str:
    """Return lines of anchors, each ten times the one before."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} {of.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, levels + 1)]
    return "\n".join(lines)


# YAML


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (grown(9), "its aliases stand for too much"),
        ("a: &a {k: v}\n" + "\n".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}' if n else '*a'] * 10)}]}}" for n in range(9)),
         "its aliases stand for too much"),
        (f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]", "its aliases stand for too much"),
        ("a: &a [*a]", "an alias is used inside its own anchor"),
        ("a: &a {<<: *a}", "an alias is used inside its own anchor"),
        ("[" * 300 + "]" * 300, "nested more than 200 deep"),
        ("a: &a " + "[" * 150 + "]" * 150 + "\nb: " + "[" * 100 + "*a" + "]" * 100, "nested more than 200 deep"),
        ("a: !!timestamp x", "'x' is no timestamp"),
        ("a: 2001-99-99", "'2001-99-99' is no timestamp"),
        ("a: !!int x", "'x' is no int"),
        ("a: !!float x", "'x' is no float"),
        ("a: !!bool x", "'x' is no bool"),
        ("a: !!binary é", "is no binary|failed to convert"),
        ("a: " + "9" * 5000, "is no int"),
        ("a: 0x" + "f" * 5000, "is no int"),
        ("a: !!int [1]", "a sequence is no int|expected a scalar node"),
        ("? [a]\n: b", "unhashable key"),
    ],
)  # fmt: skip
def test_yaml_beyond_the_bounds_is_an_error_with_its_place(text: str, problem: str) -> None:
    """Aliases, merge keys, nesting and scalars each cause a YAML error, before a value is built."""
    with pytest.raises(yaml.MarkedYAMLError, match=problem) as caught:
        bounded_yaml.load(text)
    assert caught.value.problem_mark is not None


def test_yaml_within_the_bounds_is_read() -> None:
    """This covers common aliases and merge keys, and text that only looks like an anchor."""
    text = "base: &base {a: 1}\none: {<<: *base, b: 2}\ntwo: [*base, *base]\nthree: AT&T x &y"
    assert bounded_yaml.load(text) == {
        "base": {"a": 1}, "one": {"a": 1, "b": 2}, "two": [{"a": 1}, {"a": 1}], "three": "AT&T x &y",
    }  # fmt: skip
    assert bounded_yaml.load("") is None


def test_the_check_of_aliases_visits_each_node_once() -> None:
    """A document that would grow without end is checked in as many steps as it has nodes."""
    visits = 0

    class Counted(yaml.SequenceNode):
        @property
        def value(self) -> list[yaml.Node]:
            nonlocal visits
            visits += 1
            return self._value

        @value.setter
        def value(self, value: list[yaml.Node]) -> None:
            self._value = value

    node: yaml.Node = yaml.ScalarNode("tag:yaml.org,2002:str", "x")
    for _ in range(30):
        node = Counted("tag:yaml.org,2002:seq", [node] * 10)
    with pytest.raises(yaml.MarkedYAMLError):
        bounded_yaml.check_aliases(node)
    assert visits < 30 * 5


# Files


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A named pipe, a socket, a device and a folder each have their own error, and reading does not wait."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path, kind in (
            (tmp_path / "pipe", "a named pipe"),
            (tmp_path / "socket", "a socket"),
            (Path("/dev/zero"), "a device"),
        ):
            with pytest.raises(NotRegular, match=f"it is {kind}, not a file"):
                read_regular(path)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular("a\0b")


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    """Bytes stay unchanged. Text gets LF as its line ends."""
    (tmp_path / "file").write_bytes(b"a\r\nb")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link") == b"a\r\nb"
    assert read_text(tmp_path / "link") == "a\nb"


# Templates

LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = "{%% set ns = namespace(x=%s) %%}{%% for i in range(99) %%}{%% set ns.x = %s %%}{%% endfor %%}{{ ns.x }}"


@pytest.mark.parametrize(
    "text",
    [
        LOOPS,
        LOOPS.replace(") %}{% e", ") if false %}{% e"),
        "{{ 'a' * 10**9 }}",
        "{{ [0] * 10**9 }}",
        "{{ 'a'|center(10**9) }}",
        "{{ 'a'.rjust(10**9) }}",
        "{{ ('\t' * 10000).expandtabs(10000) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '%999999999d'|format(1) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
        "{{ ('a' * 10**6)|replace('a', 'b' * 10**6) }}",
        "{{ ('a' * 10**5)|list|join('b' * 10**6) }}",
        "{{ [1]|map('center', 10**9)|list }}",
        "{{ [1]|tojson(indent=10**9) }}",
        "{{ [1]|slice(10**9)|list }}",
        "{{ ('a\n' * 10**5)|indent(1000) }}",
        "{{ 2 ** (10**9) }}",
        DOUBLED % ("'aa'", "ns.x ~ ns.x"),
        DOUBLED % ("'aa'", "ns.x + ns.x"),
        DOUBLED % ("[1]", "[ns.x, ns.x]"),
        DOUBLED % ("7", "ns.x * ns.x"),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 1/0 }}",
        "{{ 1 + 'a' }}",
        "{{ '%d' % 'x' }}",
        "{{ ''.join([1]) }}",
        "{{ 1e400|int }}",
    ],
)
def test_a_template_that_grows_or_fails_is_an_error_with_its_place(text: str) -> None:
    """The check finds nothing, because it evaluates nothing. Rendering raises one error."""
    assert problem_in(text, KNOWN) is None
    with pytest.raises(WorkflowError, match=r"^w\.yaml:1:1: \S"):
        render(text, {}, "w.yaml:1:1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "brackets nest more than 20 deep"),
        ("{{ " + "not " * 5000 + "1 }}", "nested too deep"),
        ("{{ date" + ".a" * 5000 + " }}", "nested too deep"),
        ("{% if 1 %}" * 300 + "{% endif %}" * 300, "nested too deep"),
        ("{{ " + "9" * 5000 + " }}", "a number is too large"),
        ("{% include 'x' %}", "cannot include other files"),
        ("{% import 'x' as y %}", "cannot include other files"),
    ],
)
def test_the_check_finds_a_template_that_cannot_be_compiled(text: str, problem: str) -> None:
    """Nesting, numbers and other files are problems of the check, and errors with a place if rendering meets them."""
    assert problem in str(problem_in(text, KNOWN))
    with pytest.raises(RetoldError, match=r"^w: "):
        render(text, {}, "w")


def test_checking_a_template_runs_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jinja2 evaluates filters of constants while it compiles. Here each filter depends on the context, so it cannot."""
    read: list[object] = []

    def noted(*values: object) -> int:
        read.extend(values)
        return 1

    monkeypatch.setattr(sandbox, "read", noted)
    assert problem_in("{{ 'a'|center(30) }}{{ 'a'|upper ~ 'b' }}{{ 'a' * 5 }}", KNOWN) is None
    assert read == []


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{ 'abc'|center(9) }}|{{ 'a'|upper }}", "   abc   |A"),
        ("{{ [1, 2, 3]|join(', ') }}", "1, 2, 3"),
        ("{{ '%s-%03d' % ('a', 5) }} {{ '{} {:>3}'.format('b', 3) }}", "a-005 b   3"),
        ("{{ 'a' ~ 1 ~ 'b' }}{{ 2 ** 10 }}{{ 'ab' * 2 }}", "a1b1024abab"),
        ("{% for i in [1, 2] %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 "),
        ("{% for k, v in {'a': 1}.items() if v %}{{ k }}={{ v }}{% else %}none{% endfor %}", "a=1"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}", "<1>"),
        ("{{ 'a,b'.split(',')|map('upper')|join }}{{ [2, 1]|sort|first }}{{ {'a': [1]}|tojson }}", 'AB1{"a": [1]}'),
        ("{% for i in range(50000) %}{% endfor %}done", "done"),
    ],
)
def test_common_templates_are_rendered(text: str, filled: str) -> None:
    """The bounds are far from these."""
    assert problem_in(text, KNOWN) is None
    assert render(text, {}, "w") == filled
