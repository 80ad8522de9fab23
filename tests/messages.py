"""What a message must name, whatever its words: `names` for errors and warnings, `unnamed` for any other text."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def names(error: type[BaseException], token: object, *tokens: object) -> Iterator[Any]:
    """Expects the error (or warning), and in its message every token; gives what pytest.raises (or warns) gives.

        with names(LayerCountError, "--student", 9, "0..5"):
            make_student("1,9", teacher, tokenizer)

    A token is what the reader has to find, not how it is said: an option, a path, file:line, a number, a label, a
    layer, and the option or command that mends it. It is matched as str() writes it, case included, and stands on its
    own: 3 is not found in 13, 3.5 or -3, nor --student in --student_birth, nor train in train.tsv. Where it may be
    written in several ways, give a compiled pattern. Where there is nothing to name, pytest.raises(error) is enough.
    """
    __tracebackhide__ = True
    warning = issubclass(error, Warning)
    with pytest.warns(error) if warning else pytest.raises(error) as caught:
        yield caught
    messages = [str(one.message) for one in caught] if warning else [str(caught.value)]
    assert any(not unnamed(message, token, *tokens) for message in messages), (
        f"not named: {unnamed(messages[0], token, *tokens)}; the message is: {messages[0]}"
    )


def unnamed(text: str, *tokens: object) -> list[object]:
    """The tokens, as `names` takes them, that do not stand in the text: assert not unnamed(printed, "--option", 3)."""
    return [token for token in tokens if not _pattern(token).search(text)]


def _pattern(token: object) -> re.Pattern[str]:
    if isinstance(token, re.Pattern):
        return token
    written = str(token)
    before = r"(?<![\w-])(?<!\w\.)" if re.match(r"[\w-]", written) else ""
    after = r"(?![\w]|[.-]\w)" if re.search(r"\w$", written) else ""
    return re.compile(before + re.escape(written) + after)
