"""Templates in a workflow's strings: Jinja2, sandboxed, with every unknown variable an error.

There are `{{execution_id}}`, `{{date}}`, `{{workflow.name}}`, `{{environment.mode}}`, `{{step.name}}`, `{{steps.NAME.text}}`
and `{{global_vars.NAME}}`. Unknown ones are found before anything runs (`problem_in`); jinja2 is imported only where a string
has a template.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..handlers import nearest
from ..recorder.errors import WorkflowError

ROOTS = ("execution_id", "date", "workflow", "environment", "step", "steps", "global_vars")
FIELDS = {
    "workflow": ("name", "description", "version"),
    "environment": ("mode",),
    "step": ("name", "type"),
    "steps": ("text", "status", "cost_usd", "turns", "tasks"),
}

VOLATILE = ("execution_id", "date")
"""Change with every run; recorded beside the request, so that replay can tell them from a changed prompt."""


def has_template(text: str) -> bool:
    """Whether a text has anything to fill in."""
    return "{{" in text or "{%" in text


def problem_in(text: str, *, earlier: Sequence[str], all_steps: Sequence[str], global_vars: Sequence[str]) -> str | None:
    """What is wrong with a template, found without running it; None where nothing is. `earlier` are the steps before."""
    if not has_template(text):
        return None
    from jinja2 import TemplateSyntaxError, meta, nodes

    try:
        tree = _environment().parse(text)
    except TemplateSyntaxError as error:
        return f"template error: {str(error.message).rstrip('.')}"
    for name in sorted(meta.find_undeclared_variables(tree)):
        if name not in ROOTS:
            return f"unknown template variable {name!r}{nearest(name, ROOTS)}"
    for node in tree.find_all(nodes.Getattr):
        root = node.node.name if isinstance(node.node, nodes.Name) else None
        if root == "global_vars" and node.attr not in global_vars:
            return f"unknown template variable 'global_vars.{node.attr}'{nearest(node.attr, global_vars)}"
        if root in ("workflow", "environment", "step") and node.attr not in FIELDS[root]:
            return f"unknown template variable '{root}.{node.attr}'{nearest(node.attr, FIELDS[root])}"
        if root == "steps" and node.attr not in earlier:
            return unknown_step(node.attr, earlier, all_steps)
        outer = node.node.node if isinstance(node.node, nodes.Getattr) else None
        if isinstance(outer, nodes.Name) and outer.name == "steps" and node.attr not in FIELDS["steps"]:
            return f"a step has no {node.attr!r}{nearest(node.attr, FIELDS['steps'])}"
    return None


def unknown_step(name: str, earlier: Sequence[str], all_steps: Sequence[str]) -> str:
    """Says of a step that cannot be referred to whether it comes later or does not exist."""
    if name in all_steps:
        return f"step {name!r} does not come before this one"
    return f"unknown step {name!r}{nearest(name, list(earlier)) if earlier else ': no step comes before this one'}"


def render(text: str, variables: Mapping[str, Any], where: str) -> str:
    """The text with its templates filled in. Raises WorkflowError naming `where`."""
    if not has_template(text):
        return text
    from jinja2 import TemplateError

    try:
        return str(_environment().from_string(text).render(variables))
    except TemplateError as error:
        raise WorkflowError(f"{where}: {_explained(text, variables, str(error.message))}.") from error


def rendered(value: Any, variables: Mapping[str, Any], where: str) -> Any:
    """A value with the templates in all its texts filled in. Raises WorkflowError."""
    if isinstance(value, str):
        return render(value, variables, where)
    if isinstance(value, dict):
        return {key: rendered(item, variables, where) for key, item in value.items()}
    return [rendered(item, variables, where) for item in value] if isinstance(value, list) else value


def as_template(condition: str) -> str:
    """A condition is an expression, or a template of one."""
    return condition if has_template(condition) else "{{ " + condition + " }}"


def holds(condition: str, variables: Mapping[str, Any], where: str) -> bool:
    """Whether a condition is true: not empty, not false, no, none or 0. Raises WorkflowError."""
    value = render(as_template(condition), variables, f"{where}, condition")
    return value.strip().lower() not in ("", "false", "no", "none", "0", "0.0", "[]", "{}")


def _explained(text: str, variables: Mapping[str, Any], problem: str) -> str:
    """Why a template cannot be filled in, in terms of steps where it reads one that has nothing to read."""
    from jinja2 import nodes

    for node in _environment().parse(text).find_all(nodes.Getattr):
        step = variables.get("steps", {}).get(node.attr)
        if isinstance(node.node, nodes.Name) and node.node.name == "steps" and step and step["status"] == "skipped":
            return f"the template reads step {node.attr!r}, which was skipped"
    return problem.rstrip(".")


def volatile_in(text: str) -> set[str]:
    """The names of the volatile variables that a text uses."""
    if not has_template(text):
        return set()
    from jinja2 import meta

    return meta.find_undeclared_variables(_environment().parse(text)) & set(VOLATILE)


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
