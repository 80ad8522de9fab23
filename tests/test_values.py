"""Plain values: what is without end is refused before anything walks through it."""

import pytest
from messages import names

from emdistill.errors import visible
from emdistill.values import DEEPEST, parse_json, parse_yaml

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
