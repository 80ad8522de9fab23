"""Plain values: what is without end is refused before anything walks through it, and what is none of its choices."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from messages import names

from emdistill import losses, mapping, methods
from emdistill.config import SharedSettings
from emdistill.errors import ConfigError, visible
from emdistill.values import DEEPEST, parse_json, parse_yaml, with_choices

BOMB = "b0: &b0 [x]\n" + "".join(f"b{n}: &b{n} [{','.join([f'*b{n - 1}'] * 10)}]\n" for n in range(1, 11))
MERGES = "b0: &b0 {x: 1}\n" + "".join(f"b{n}: &b{n} {{<<: [{','.join([f'*b{n - 1}'] * 10)}]}}\n" for n in range(1, 11))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 500 + "]" * 500, "{", "\ud83d", ""])
def test_json_without_end_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (what it says is the parser's)
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    [BOMB, MERGES, "[" * 100_000, "- " * 5_000, "&a [*a]", "!!timestamp x", "!!int ''", "!!bool x", "2001-99-99",
     "!!python/object/apply:os.system ['true']", "? [a]\n: b", "a: b: c"],
)  # fmt: skip
def test_yaml_without_end_or_of_tags_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_yaml(text)


def test_what_is_allowed_is_read() -> None:
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert parse_json(deep) == parse_yaml(deep)
    assert parse_json('{"a": [1, "[[["]}') == {"a": [1, "[[["]}
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}") == {"a": {"x": 1}, "b": {"x": 1, "y": [{"x": 1}] * 2}}
    assert parse_yaml("") is None


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "x: {a: 1,\n\n a: 1}"])
def test_a_key_stands_once_in_a_mapping(text: str) -> None:
    with names(ValueError, "'a'", 1, 3):
        parse_yaml(text)


def test_what_steers_a_terminal_is_escaped() -> None:
    assert visible("a\tb\nÄ 北京 🙂") == "a\tb\nÄ 北京 🙂"
    assert visible("\x1b[2J\r\x9b31m\u202e\ud83d") == "\\x1b[2J\\r\\x9b31m\\u202e\\ud83d"


def has_choices(hint: Any) -> bool:
    return get_origin(hint) is Literal or any(map(has_choices, get_args(hint)))


def settings_with_choices() -> Iterator[tuple[Callable[..., Any], str]]:
    """Whatever a Python program may call in these packages, and each of its parameters that has but some values."""
    for package in (losses, mapping, methods):
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for name, called in vars(module).items():
                if name.startswith("_") or found.name.startswith("_") or not callable(called):
                    continue
                if getattr(called, "__module__", None) == module.__name__:
                    hints = get_type_hints(called.__init__ if isinstance(called, type) else called)
                    yield from (
                        (called, each) for each, hint in hints.items() if each != "return" and has_choices(hint)
                    )
    yield from ((SharedSettings, name) for name in ("soft_loss", "temperature_schedule"))


@pytest.mark.parametrize(
    ("called", "setting"),
    [pytest.param(*each, id=f"{each[0].__name__}-{each[1]}") for each in settings_with_choices()],
)
def test_an_unknown_value_of_a_setting_is_refused_before_anything_else(called: Any, setting: str) -> None:
    with names(ConfigError, setting, "nonsense"):
        called(**{setting: "nonsense"})


def test_the_nearest_value_is_named_and_none_may_be_one() -> None:
    @with_choices
    def sized(size: Literal["small", "large"] | None = None, *, other: str = "") -> object:
        """Its words."""
        return size, other

    assert (sized("small"), sized(), sized(None, other="larg")) == (("small", ""), (None, ""), (None, "larg"))
    assert (sized.__doc__, [*inspect.signature(sized).parameters]) == ("Its words.", ["size", "other"])
    for call in (lambda: sized("larg"), lambda: sized(size="larg")):
        with names(ConfigError, "size", "small", "larg", "'large'"):
            call()
