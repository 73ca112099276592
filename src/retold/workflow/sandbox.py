"""Jinja2's sandbox with bounds on work and size. A workflow file may be hostile: `{{ 'a' * 10**10 }}` must fail, and fast.

Jinja2's own sandbox blocks Python's internals, but does not limit memory and time. This one adds:

1. A budget for each rendering (`budget`): loops, calls, filters, operators and output take from it. The size of a result is
   estimated from the arguments before the operation runs.
2. Limits on widths, repetitions and powers, because a number in the template determines the size of their results.
3. No evaluation before rendering. Jinja2 folds constants, including filters, while it compiles; therefore bounded filters and
   operators are marked as depending on the context. Checking a template runs none of them.
4. Limits on nesting, so that parsing and compiling cannot exhaust the stack.

Imported only if a workflow has a template, because jinja2 is slow to import.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import StrictUndefined, TemplateRuntimeError, TemplateSyntaxError, nodes, pass_context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

BUDGET = 20_000_000
"""The budget of one rendering: 1 for each character that is read or made, `VALUE` for each value, `STEP` for each step of a
loop. Spending all of it takes about a second.
"""

VALUE = 25
STEP = 100
MAX_WIDTH = 10_000
"""The largest width, indentation and number of columns."""

MAX_BITS = 4096
"""The largest whole number, in bits. Python refuses to print much larger ones."""

MAX_BRACKETS = 20
MAX_LEVELS = 80
"""How deep brackets and the parsed template may nest. Jinja2's parser needs a dozen calls for each bracket."""

_left: ContextVar[list[int] | None] = ContextVar("left", default=None)

_WIDTH = re.compile(r"\d{5}")
_PERCENT = re.compile(r"%[^a-zA-Z%]*+")
_SQUARES = frozenset({"pprint", "striptags", "urlize", "wordwrap"})
"""Filters whose cost may grow with the square of the text."""


class TooMuch(TemplateRuntimeError):
    """A template does more work, or makes more text, than the bounds allow."""


@contextmanager
def budget() -> Iterator[None]:
    """Give the template that is rendered in the block its budget."""
    token = _left.set([BUDGET])
    try:
        yield
    finally:
        _left.reset(token)


def spend(cost: int) -> None:
    """Take from the budget of the current rendering. Raise TooMuch if it is exhausted."""
    left = _left.get()
    if left is not None:
        left[0] -= cost
        if left[0] < 0:
            raise TooMuch("the template does too much: its loops, texts or numbers grow beyond the bounds")


def read(*values: Any) -> int:
    """Take the size of values, including the contents of containers, from the budget and return it. Raise TooMuch."""
    whole, waiting = 0, [*values]
    left = _left.get() or [BUDGET]
    while waiting and whole <= left[0]:
        value = waiting.pop()
        size = VALUE
        if isinstance(value, str | bytes):
            size += len(value)
        elif isinstance(value, int):
            size += value.bit_length() // 8
        elif isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, Namespace):
            waiting.append(value._Namespace__attrs)
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
        whole += size
    spend(whole)
    return whole


def _bounded(number: Any, limit: int = MAX_WIDTH) -> int:
    """Return a requested width or repetition. Raise TooMuch if it exceeds the limit."""
    if isinstance(number, int) and number > limit:
        raise TooMuch(f"the number {number if number < 10**18 else 'given'} is too large here; at most {limit}")
    return number if isinstance(number, int) else 0


def _of_text(text: str, name: str, args: Sequence[Any]) -> None:
    """Take the size of the result of a text method, or of a filter of the same name. Raise TooMuch."""
    numbers = [number for number in args if isinstance(number, int)]
    if name in ("center", "ljust", "rjust", "zfill", "expandtabs"):
        width = max(map(_bounded, numbers), default=8)
        spend(width * (text.count("\t") if name == "expandtabs" else 1))
    elif name == "replace" and len(args) >= 2:
        spend(text.count(str(args[0])) * len(str(args[1])))
    elif name == "indent":
        spend(text.count("\n") * max((_bounded(number, 1000) for number in numbers), default=4))
    elif name == "join":
        spend(len(text) * (len(args[0]) if args and hasattr(args[0], "__len__") else 1))
    elif name in ("format", "format_map"):
        # A nested field (`{:{width}}`) takes its width from an argument.
        if _WIDTH.search(text) or re.search(r"\{[^{}]*+\{", text.replace("{{", "")):
            raise TooMuch(f"a format width is too large, or is not written in the format; at most {MAX_WIDTH - 1}")
        spend(text.count("{") * (MAX_WIDTH + _largest(args)))
    elif name == "translate" and args and isinstance(args[0], Mapping):
        spend(len(text) * _largest(list(args[0].values())))


def _largest(values: Iterable[Any]) -> int:
    return max(map(read, values), default=0)


def _percent(text: str, values: Any) -> None:
    """Take the size of `text % values`. Raise TooMuch."""
    # A width from an argument (`%*d`), or one of five digits or more.
    if any("*" in each or _WIDTH.search(each) for each in _PERCENT.findall(text)):
        raise TooMuch(f"a format width is too large, or is not written in the format; at most {MAX_WIDTH - 1}")
    spend(text.count("%") * (MAX_WIDTH + read(values)))


def _filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter with bounds. It is marked as depending on the context, so that Jinja2 does not run it while compiling."""
    needs = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @functools.wraps(function)
    def bounded(context: Any, *args: Any, **kwargs: Any) -> Any:
        given = [*args[1:], *kwargs.values()]
        size = read(*args, *kwargs.values())
        if name in _SQUARES:
            spend(size * size // 100)
        elif name in ("slice", "batch"):
            spend(sum(_bounded(each) for each in given if isinstance(each, int)))
        elif name == "tojson":
            spend(size * sum(_bounded(each, 100) for each in given if isinstance(each, int)))
        elif name == "join":
            spend(size * _largest(given[:1]))
        elif name == "format":
            _percent(str(args[0]), [*args[1:], kwargs])
        elif name in ("center", "indent", "replace"):
            _of_text(str(args[0]), name, given)
        first = {"context": (context,), "eval_context": (context.eval_ctx,), "environment": (context.environment,)}
        made = function(*first.get(str(needs), ()), *args, **kwargs)
        read(made)
        return made

    return pass_context(bounded)


class _Bounds(NodeTransformer):
    """Rewrites a template: each step of a loop, each call of a macro, and each `~` takes from the budget."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _own("each", [node.iter], node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_own("step", [], node.lineno), lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:
        self.generic_visit(node)
        return _own("joined", node.nodes, node.lineno)


def _own(name: str, args: list[Any], lineno: int) -> nodes.Call:
    """Return a call of one of the environment's own methods."""
    return nodes.Call(nodes.EnvironmentAttribute(name, lineno=lineno), args, [], None, None, lineno=lineno)


class _Steps:
    """The values of a loop. Taking one costs STEP. It has a length if the values have one."""

    def __init__(self, values: Iterable[Any]) -> None:
        self._values = values
        if hasattr(values, "__len__"):
            self.__len__ = values.__len__

    def __iter__(self) -> Iterator[Any]:
        for value in self._values:
            spend(STEP)
            yield value


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The environment of a workflow's templates. Rendering raises TooMuch inside a `budget`."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **options: Any) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_shown, **options)
        self.filters = {name: _filter(name, function) for name, function in self.filters.items()}
        # It generates text of any length.
        del self.globals["lipsum"]

    # Called by the rewritten template

    def each(self, values: Iterable[Any]) -> Any:
        """Return the values of a loop. An undefined value is returned unchanged, so that it raises its own error."""
        return _Steps(values) if not isinstance(values, StrictUndefined) else values

    def step(self) -> str:
        """Take one step of work."""
        spend(STEP)
        return ""

    def joined(self, *parts: Any) -> str:
        """Return `a ~ b`."""
        read(*parts)
        return "".join(map(str, parts))

    # Called by Jinja2

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        try:
            self._check_brackets(source)
            tree = super()._parse(source, name, filename)
        except (RecursionError, OverflowError, MemoryError) as error:
            raise TemplateSyntaxError("nested too deep", 1, name, filename) from error
        except ValueError as error:
            raise TemplateSyntaxError(f"a number is too large ({error})", 1, name, filename) from error
        if _levels(tree) > MAX_LEVELS:
            raise TemplateSyntaxError("nested too deep", 1, name, filename)
        return tree

    def _check_brackets(self, source: str) -> None:
        depth = 0
        for line, kind, value in self.lex(source):
            if kind == "operator":
                depth += (value in "([{") - (value in ")]}")
                if depth > MAX_BRACKETS:
                    raise TemplateSyntaxError(f"brackets nest more than {MAX_BRACKETS} deep", line)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        tree = _Bounds().visit(source)
        tree.set_environment(self)
        return super()._generate(tree, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Run an operator that may produce a result much larger than its operands."""
        if operator == "%" and isinstance(left, str):
            _percent(left, right)
        elif operator == "**":
            _bounded(_bits(left) * (abs(right) if isinstance(right, int) else 1), MAX_BITS)
        elif operator == "*":
            for one, many in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple) and isinstance(many, int):
                    spend(len(one) * max(many, 0))
            _bounded(_bits(left) + _bits(right), MAX_BITS)
        made = super().call_binop(context, operator, left, right)
        read(made)
        return made

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, a macro or a global."""
        # The environment's own methods (`each`, `step`, `joined`) take from the budget themselves.
        if getattr(__obj, "__self__", None) is __self:
            return __obj(*args)
        # For a bound method of a text, `__self__` is the text. Jinja2 wraps str.format.
        text = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        read(*args, *kwargs.values())
        if isinstance(text, str):
            _of_text(text, getattr(__obj, "__name__", ""), [*args, *kwargs.values()])
        made = super().call(__context, __obj, *args, **kwargs)
        read(made)
        return made


@pass_context
def _shown(_: Any, value: Any) -> Any:
    """Take the size of a value that goes into the output."""
    read(value)
    return value


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _levels(tree: nodes.Node) -> int:
    """Return how deep a parsed template nests."""
    deepest, waiting = 0, [(tree, 1)]
    while waiting:
        node, level = waiting.pop()
        deepest = max(deepest, level)
        waiting += [(child, level + 1) for child in node.iter_child_nodes()]
    return deepest
