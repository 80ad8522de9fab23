"""Plain values of files, JSON or YAML: parsed once, and read as typed values; whatever is wrong is a ValueError.

JSON and YAML of strangers may be small and yet without end: nested so deeply that whatever walks through it fails, or,
by YAML's aliases, a thousand million values in ten lines. Both are refused here, before anything walks.
"""

import ast
import itertools
import json
import re
from collections.abc import Callable
from functools import cache, wraps
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from emdistill.errors import ConfigError, nearest

DEEPEST = 100  # lists and objects within each other
TOO_DEEP = f"lists and objects stand more than {DEEPEST} deep within each other"
_QUOTED = r"""'(?:[^'\\]|\\[\\'"nrtxuU])*'|"(?:[^"\\]|\\[\\'"nrtxuU])*\""""
_WRITTEN = re.compile(  # a part of what Python or NumPy writes for a list, a tuple, a set or an object
    rf"(?P<blanks>\s*)(?:(?P<value>{_QUOTED}|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|True|False|None)|(?P<none>nan)"
    r"|(?P<opens>[\[({])|(?:array|np\.\w+)(?P<calls>\()|(?P<closes>[\])}])|(?P<between>[,:])(?P<type>\s*dtype=[\w.<>']+)?)"
)
LONGEST_CELL = 2**16  # characters of what is written so
MOST_VALUES = 1_000_000  # of a YAML file whose aliases are written out

Typed = TypeVar("Typed")
Called = TypeVar("Called", bound=Callable[..., Any])


def read_values(path: Path, parse: Callable[[bytes], Any] | None = None) -> Any:
    """What a file holds, in JSON if not `parse_yaml`; raises ValueError: it cannot be opened, or not be parsed."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    return (parse or parse_json)(content)


def parse_json(content: str | bytes, *, once: bool = False) -> Any:
    """One JSON value, in UTF-8; raises ValueError. once: also for a key that stands twice in one object."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        values = json.loads(text, object_pairs_hook=_each_once if once else None)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except ValueError as error:
        mend = "; save it as UTF-8 without a byte-order mark" if "BOM" in str(error) else ""
        raise ValueError(f"this is no JSON: {error}{mend}") from None
    # Counting is fast: of a million lines only those with many brackets are walked through.
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(values):
        raise ValueError(TOO_DEEP)
    return values


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} occurs twice; rename one of the two")
    return values


def parse_cell(text: str) -> list[Any] | dict[Any, Any] | None:
    """The list or object that a cell of text holds, as JSON, Python or NumPy write it; None for any other text.

    A tuple and a set are lists: `('a', 'b')`. NumPy writes no commas: `['a' 'b']`, `[0 1]`; so do pandas and datasets.
    """
    if not (text.startswith(("[", "{", "(", "array(")) and text.endswith(("]", "}", ")"))):
        return None
    try:
        values = parse_json(text)
    except ValueError:
        values = _parse_python(text)
    if isinstance(values, tuple | set | frozenset):
        values = sorted(values, key=repr) if isinstance(values, set | frozenset) else list(values)
    return values if isinstance(values, list | dict) else None


def _parse_python(text: str) -> Any:
    """The value of a Python literal, perhaps with NumPy's arrays in it; None for any other text."""
    source, place, depth, ended = list[str](), 0, 0, False
    while place < len(text) <= LONGEST_CELL:
        if (part := _WRITTEN.match(text, place)) is None:
            return None
        if ended and not (part["closes"] or part["between"]):
            if not part["blanks"]:
                return None
            source.append(",")
        depth += 1 if part["opens"] or part["calls"] else -1 if part["closes"] else 0
        if depth > DEEPEST:
            return None
        source.append("None" if part["none"] else "" if part["type"] else part[part.lastgroup or ""])
        ended, place = not (part["opens"] or part["calls"] or part["between"]), part.end()
    try:
        return ast.literal_eval("".join(source))
    except (ValueError, SyntaxError, TypeError):
        return None


def parse_yaml(content: str | bytes) -> Any:
    """One YAML document, in UTF-8, of plain values, whatever its tags say; raises ValueError."""
    text = content if isinstance(content, str) else content.decode("utf-8")
    if _open_brackets(text) > DEEPEST:
        raise ValueError(TOO_DEEP)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _written_out(node, {})
        values = None if node is None else loader.construct_document(node)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # All but the first: a tag on a value that it does not fit, as in `!!bool maybe`.
        raise ValueError(f"this is no YAML of plain values: {error}") from None
    if _is_deep(values):
        raise ValueError(TOO_DEEP)
    return values


def _open_brackets(text: str) -> int:
    """How many brackets are open at once, those of quoted texts included: PyYAML's time grows with its square."""
    steps = (1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", text))
    return max(itertools.accumulate(steps), default=0)


def _is_deep(values: Any) -> bool:
    """Whether lists and objects stand more than DEEPEST deep within each other."""
    level = [values]
    for _ in range(DEEPEST + 1):
        objects = [value.values() for value in level if isinstance(value, dict)]
        lists = [value for value in level if isinstance(value, list)]
        level = [value for group in (*objects, *lists) for value in group]
    return bool(level)


def _refuse_twice(node: yaml.MappingNode) -> None:
    """Raise ValueError for a key that stands twice in one mapping: PyYAML takes the last."""
    lines: dict[str, int] = {}
    for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
        line = key.start_mark.line + 1
        if key.value in lines:
            raise ValueError(
                f"{key.value!r} occurs twice, on lines {lines[key.value]} and {line}; leave out one of them"
            )
        lines[key.value] = line


def _written_out(node: yaml.Node | None, counts: dict[int, int]) -> int:
    """How many values a node holds once its aliases are written out; `counts` has those of nodes met before."""
    if id(node) not in counts:
        counts[id(node)] = 0  # it is not known yet, so that an alias that finds it stands within it
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(node)
        parts = [part for each in inner for part in (each if isinstance(each, tuple) else (each,))]
        counts[id(node)] = 1 + sum(_written_out(part, counts) for part in parts)
    if counts[id(node)] == 0:
        raise ValueError("an alias stands within what it names")
    if counts[id(node)] > MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
    return counts[id(node)]


def typed(content: object, kind: type[Typed], within: str = "") -> Typed:
    """Plain values as a dataclass or another type; raises ValueError naming the field, below `within`."""
    try:
        return cast(Typed, _adapter(cast(Any, kind)).validate_python(content))
    except ValidationError as error:
        raise ValueError(first_fault(error, within)) from None
    except UnicodeEncodeError as error:  # pydantic's own, of a key
        raise ValueError(f"{within}: half of a surrogate pair, which is no text ({error})".removeprefix(": ")) from None


def first_fault(error: ValidationError, within: str = "") -> str:
    """The field at fault, below `within`, and what is wrong with it."""
    fault = error.errors()[0]
    place = ".".join(map(str, (within, *fault["loc"]))).removeprefix(".")
    return f"{place}: {fault['msg']}" if place else fault["msg"]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def with_choices(called: Called) -> Called:
    """The same function or class, which refuses a value that is not among its parameter's Literal.

    The command line has refused it by then; a call from Python has not. Raises ConfigError with the nearest value.
    """
    if isinstance(called, type):
        called.__init__ = with_choices(called.__init__)  # type: ignore[misc]
        return called
    parameters, hints = signature(called), get_type_hints(called)
    choices = {name: values for name in parameters.parameters if (values := _choices(hints.get(name)))}

    @wraps(called)
    def checked(*given: Any, **named: Any) -> Any:
        for name, value in parameters.bind_partial(*given, **named).arguments.items():
            if name in choices and value not in choices[name]:
                texts = [text for text in choices[name] if text is not None]
                raise ConfigError(f"{name} takes one of {', '.join(texts)}, not {value!r}.{nearest(str(value), texts)}")
        return called(*given, **named)

    return cast(Called, checked)


def _choices(hint: Any) -> tuple[Any, ...]:
    """The values that a Literal, or the union of one and None, has; none of any other type."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    parts = [(None,) if part is type(None) else _choices(part) for part in get_args(hint)]
    return tuple(value for part in parts for value in part) if all(parts) and any(map(any, parts)) else ()
