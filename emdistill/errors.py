"""Every error a user can cause, each naming the thing and the mend.

EmdistillError
├── ConfigError, DataError, TeacherError, TransportError, CacheError, TrainingError
├── ModelError ── HeadError, LayerCountError, TokenizerError, CaptureError
└── OutputError ── BusyError
"""

import difflib
import re
import reprlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SHOWN_NAMES = 20
SHOWN_CHARACTERS = 60
# Control codes but tab and line feed, marks of direction, and halves of surrogate pairs, which no terminal can show.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = SHOWN_CHARACTERS


class EmdistillError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(EmdistillError):
    """An option, a recipe or a method that cannot be used as written."""


class DataError(EmdistillError):
    """A file, column, row or label that cannot be used; the message opens with `file:line`."""

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None) -> None:
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(place + message)
        self.file = file
        self.line = line


class ModelError(EmdistillError):
    """A folder or hub id that is no loadable encoder or tokenizer."""


class HeadError(ModelError):
    """An encoder without a trained head."""


class LayerCountError(ModelError):
    """Layers that the encoder does not have."""


class TokenizerError(ModelError):
    """A tokenizer that does not fit its encoder, or cannot be used beside the other one."""


class CaptureError(ModelError):
    """States that this encoder cannot give."""


class TeacherError(EmdistillError):
    """A teacher that would teach nonsense: near chance, or its labels in another order."""


class TransportError(EmdistillError):
    """Costs or masses that make no transport problem."""


class CacheError(EmdistillError):
    """Teacher outputs that do not fit on the disk or in half precision, or were not kept."""


class OutputError(EmdistillError):
    """An output folder that already holds something."""


class BusyError(OutputError):
    """Another process is working in this output folder."""


class TrainingError(EmdistillError):
    """Training cannot go on: a loss became NaN or infinite."""


class Interrupted(Exception):
    """The user stopped the run; what it has done by then is kept, unless it had not begun."""

    def __init__(self, message: str, *, begun: bool = True) -> None:
        super().__init__(message)
        self.begun = begun


def nearest(name: str, names: Iterable[str]) -> str:
    """' Did you mean …?' with the most similar name, or ''."""
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def listing(names: Iterable[str]) -> str:
    """The first twenty names, each cut short, and the number of all where there are more."""
    every = [name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}…" for name in names]
    more = f", … ({len(every)} in all)" if len(every) > SHOWN_NAMES else ""
    return ", ".join(every[:SHOWN_NAMES]) + more


def visible(text: str) -> str:
    """A text of a stranger's file as a terminal may show it: what would steer it, or turn the line round, escaped."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def tell(text: str) -> None:
    """A line on stderr: what was mended or passed over while the work goes on."""
    print(visible(text), file=sys.stderr)


def shown(value: object) -> str:
    """A value as Python writes it, cut short: one cell may hold a whole document."""
    text = _SHORT.repr(value)
    return text if len(text) <= 2 * SHOWN_CHARACTERS else f"{text[: 2 * SHOWN_CHARACTERS]}…"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A line per setting that has another value now; '' where there is none."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "\n".join(f"  {name}: {before.get(name)!r} then, {now.get(name)!r} now" for name in names)
