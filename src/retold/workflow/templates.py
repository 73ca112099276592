"""Templates in a workflow's strings: Jinja2, sandboxed. An unknown variable is an error.

The variables are `{{execution_id}}`, `{{date}}`, `{{workflow.name}}`, `{{environment.mode}}`, `{{step.name}}`,
`{{steps.NAME.text}}` and `{{global_vars.NAME}}`. `problem_in` finds unknown ones before anything runs. jinja2 is imported only
if a string has a template.
"""

import contextlib
import functools
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..recorder.errors import WorkflowError
from ..recorder.words import nearest

ROOTS = ("execution_id", "date", "workflow", "environment", "step", "steps", "global_vars")
FIELDS = {
    "workflow": ("name", "description", "version"),
    "environment": ("mode",),
    "step": ("name", "type"),
    "steps": ("text", "status", "cost_usd", "turns", "tasks"),
    "tasks": ("text", "status"),
}

MANY = 12
"""The largest number of names that an error message lists."""

_BRACED = re.compile(r"\{\{[-+]?((?:(?!\{\{|\}\}).)*?)[-+]?\}\}", re.DOTALL)

_NO_COMMENT = ("\x00{#", "#}\x00")
"""Comment delimiters that no prompt contains. So `{#` is text, as in Svelte, and no part of a prompt is dropped."""

VOLATILE = ("execution_id", "date")
"""Variables that change in every run. Their values are recorded with the request, so that replay can ignore them."""


def has_template(text: str) -> bool:
    """Return True if a text contains a template."""
    return "{{" in text or "{%" in text


@dataclass(frozen=True)
class Known:
    """The names that a template may use: all steps in order with the ids of their tasks, the `earlier` steps, and the
    variables.
    """

    steps: Mapping[str, Sequence[str]]
    earlier: Sequence[str]
    variables: Sequence[str]


def problem_in(text: str, known: Known) -> str | None:
    """Return the problem of a template, found without running it, or None."""
    if not has_template(text):
        return None
    from jinja2 import TemplateSyntaxError, meta, nodes

    environment = _environment()
    try:
        tree = environment.parse(text)
    except TemplateSyntaxError as error:
        return f"template error: {str(error.message).rstrip('.')}"
    if any(True for _ in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
        return "a template cannot include other files; use a part of type file"
    for kind, there in ((nodes.Filter, environment.filters), (nodes.Test, environment.tests)):
        for node in tree.find_all(kind):
            if node.name not in there:
                return f"unknown template {kind.__name__.lower()} {node.name!r}{_near(node.name, sorted(there))}"
    for name in sorted(meta.find_undeclared_variables(tree)):
        if name not in ROOTS:
            return f"unknown template variable {name!r}{nearest(name, ROOTS)}"
    paths = [_path_of(node) for node in tree.find_all((nodes.Getattr, nodes.Getitem))]
    return next(filter(None, (_problem_of(path, known) for path in paths)), None)


def _path_of(node: Any) -> list[str]:
    """Return `steps.a.text` and `steps['a'].text` as a list of names, and an empty list for any other expression."""
    from jinja2 import nodes

    # Only constant names can be checked before the run; `steps[name]` cannot.
    if isinstance(node, nodes.Name):
        return [node.name]
    if isinstance(node, nodes.Getattr):
        outer, name = _path_of(node.node), node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        outer, name = _path_of(node.node), str(node.arg.value)
    else:
        return []
    return [*outer, name] if outer else []


def _problem_of(path: Sequence[str], known: Known) -> str | None:
    """Return the problem of the last name of a path, or None. The names before it are checked separately."""
    match path:
        case ["global_vars", name] if name not in known.variables:
            return f"unknown template variable 'global_vars.{name}'{nearest(name, known.variables)}"
        case [("workflow" | "environment" | "step") as root, name] if name not in FIELDS[root]:
            return f"unknown template variable '{root}.{name}'{nearest(name, FIELDS[root])}"
        case ["steps", name] if name not in known.earlier:
            return unknown_step(name, known.earlier, known.steps)
        case ["steps", _, name] if name not in FIELDS["steps"]:
            return f"a step has no {name!r}{nearest(name, FIELDS['steps'])}"
        case ["steps", step, "tasks", name] if name not in known.steps.get(step, ()):
            return f"step {step!r} has no task {name!r}{_near(name, known.steps.get(step, ()))}"
        case ["steps", _, "tasks", _, name] if name not in FIELDS["tasks"]:
            return f"a task has no {name!r}{nearest(name, FIELDS['tasks'])}"
    return None


def _near(word: str, words: Sequence[str]) -> str:
    """Return the nearest word, else the whole list if it is short enough to help, else an empty text."""
    hint = nearest(word, words)
    return hint if hint.endswith("?") or len(words) <= MANY else ""


def unknown_step(name: str, earlier: Sequence[str], all_steps: Container[str]) -> str:
    """Return the reason why a step cannot be referred to: it comes later, or does not exist."""
    if name in all_steps:
        return f"step {name!r} does not come before this one"
    dashed = next((step for step in earlier if step.partition("-")[0] == name), None)
    if dashed is not None:  # Jinja parses `steps.my-step` as a subtraction
        return f"unknown step {name!r}; write steps[{dashed!r}] for a name that holds a dash"
    return f"unknown step {name!r}{nearest(name, list(earlier)) if earlier else ': no step comes before this one'}"


def render(text: str, variables: Mapping[str, Any], where: str) -> str:
    """Return the text with its templates filled in. Raise WorkflowError at the place `where`."""
    if not has_template(text):
        return text
    with _explaining(text, variables, where):
        made = str(_environment().from_string(text).render(variables))
    return made


def problem_in_condition(condition: str, known: Known) -> str | None:
    """Return the problem of a condition, found without evaluating it, or None."""
    expression = _expression(condition)
    text = "{{ " + expression + " }}"
    if has_template(expression) and not _is_one_expression(text):
        return AROUND
    return problem_in(text, known) or (None if _is_one_expression(text) else AROUND)


def holds(condition: str, variables: Mapping[str, Any], where: str) -> bool:
    """Return whether a condition is true. An ordering comparison with an unknown value is false.

    A text is false if it is empty or one of false, no, none and 0. Raise WorkflowError.
    """
    where = f"{where}, condition"
    expression = _expression(condition)
    if not _is_one_expression("{{ " + expression + " }}"):
        raise WorkflowError(f"{where}: {AROUND}.")
    with _explaining("{{ " + expression + " }}", variables, where):
        # A text is compared as YAML users write booleans: a step that answered "no" is false.
        value = _environment().compile_expression(expression, undefined_to_none=False)(**variables)
        true = value.strip().lower() not in ("", "false", "no", "none", "0", "0.0") if isinstance(value, str) else bool(value)
    return true


AROUND = "a condition is one expression, such as steps.check.text == 'yes', without text around it"


def _expression(condition: str) -> str:
    """Return the expression of a condition, which may be bare or in one pair of braces."""
    braced = _BRACED.fullmatch(condition.strip())
    return (braced[1] if braced else condition).strip()


def _is_one_expression(text: str) -> bool:
    """Return True if a template is a single expression. A syntax error is reported elsewhere."""
    from jinja2 import TemplateSyntaxError, nodes

    try:
        body = _environment().parse(text).body
    except TemplateSyntaxError:
        return False
    return (
        len(body) == 1 and isinstance(body[0], nodes.Output) and [type(n) is nodes.TemplateData for n in body[0].nodes] == [False]
    )


@contextlib.contextmanager
def _explaining(text: str, variables: Mapping[str, Any], where: str) -> Iterator[None]:
    """Convert all errors of a template to a WorkflowError at the place `where`, because filters raise errors of any type."""
    from jinja2 import TemplateError

    from .sandbox import budget

    try:
        with budget():
            yield
    except TemplateError as error:
        raise WorkflowError(f"{where}: {_explained(text, variables, str(error.message))}.") from error
    except Exception as error:
        raise WorkflowError(
            f"{where}: the template cannot be evaluated: {type(error).__name__}: {str(error).rstrip('.')}."
        ) from error


def _explained(text: str, variables: Mapping[str, Any], problem: str) -> str:
    """Return the reason why a template cannot be filled in, in terms of the steps that it reads."""
    from jinja2 import TemplateSyntaxError, nodes

    try:
        tree = _environment().parse(text)
    except TemplateSyntaxError:
        return problem.rstrip(".")
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        path, steps = _path_of(node), variables.get("steps", {})
        if path[:1] != ["steps"] or len(path) < 3 or path[1] not in steps:
            continue
        if steps[path[1]]["status"] == "skipped" and path[2] != "status":
            return f"the template reads step {path[1]!r}, which was skipped"
        task = steps[path[1]].get("tasks", {}).get(path[3]) if len(path) > 4 and path[2] == "tasks" else None
        if task is not None and path[4] not in task:
            return f"the template reads task {path[3]!r} of step {path[1]!r}, which {task['status']}"
    return problem.rstrip(".")


def reads_steps(text: str) -> bool:
    """Return True if a template reads the result of a step, which a model may have written."""
    if not has_template(text):
        return False
    from jinja2 import meta

    return "steps" in meta.find_undeclared_variables(_environment().parse(text))


def volatile_in(text: str) -> set[str]:
    """Return the names of the volatile variables that a text uses."""
    if not has_template(text):
        return set()
    from jinja2 import meta

    return meta.find_undeclared_variables(_environment().parse(text)) & set(VOLATILE)


@functools.cache
def _environment() -> Any:
    from jinja2 import nodes

    from .sandbox import BoundedEnvironment

    class TemplateEnvironment(BoundedEnvironment):
        def getattr(self, obj: Any, attribute: str) -> Any:
            """A step named like a method of dictionaries (update, copy) is that step all the same."""
            return obj[attribute] if isinstance(obj, dict) and attribute in obj else super().getattr(obj, attribute)

        def _generate(self, source: Any, *args: Any, **options: Any) -> str:
            """Make ordering comparisons with None false: a cost that is not known is neither above nor below a limit."""
            for compare in list(source.find_all(nodes.Compare)):
                if any(operand.op in ("lt", "lteq", "gt", "gteq") for operand in compare.ops):
                    for each in (compare, *compare.ops):
                        each.expr = nodes.Filter(each.expr, _ORDERED, [], [], None, None, lineno=compare.lineno)
            source.set_environment(self)
            return str(super()._generate(source, *args, **options))

    environment = TemplateEnvironment(comment_start_string=_NO_COMMENT[0], comment_end_string=_NO_COMMENT[1])
    environment.filters[_ORDERED] = lambda value: math.nan if value is None else value
    return environment


_ORDERED = "_ordered"
"""The filter around both sides of an ordering comparison."""
