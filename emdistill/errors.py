"""Every error a user can cause, each naming the thing and the mend.

EmdistillError
├── ConfigError            an option, a recipe or a method that cannot be used as written
├── DataError              a file, column, row or label; names file and line
├── ModelError             a folder that is no loadable encoder or tokenizer
│   ├── LayerCountError    layers are named that the encoder does not have
│   ├── TokenizerError     teacher and student do not read the same tokens
│   └── CaptureError       states the objective needs cannot be had from this encoder
├── TeacherError           a teacher that would teach nonsense: near chance, labels in another order
├── TransportError         costs or masses that make no transport problem
├── CacheError             teacher outputs that do not fit on the disk or in half precision, or were not kept
├── OutputError            an output folder that holds something already
│   └── BusyError          another process is at it
└── TrainingError          training cannot go on: a NaN or infinite loss
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path

SHOWN_NAMES = 20
SHOWN_CHARACTERS = 60
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = SHOWN_CHARACTERS


class EmdistillError(Exception):
    """Base of every error this package raises on purpose."""


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


class LayerCountError(ModelError):
    """Layers are named that the encoder does not have."""


class TokenizerError(ModelError):
    """Teacher and student do not read the same tokens."""


class CaptureError(ModelError):
    """States that the objective needs cannot be had from this encoder."""


class TeacherError(EmdistillError):
    """A teacher that would teach nonsense: near chance, or its labels in another order."""


class TransportError(EmdistillError):
    """Costs or masses that make no transport problem."""


class CacheError(EmdistillError):
    """Teacher outputs that do not fit on the disk or in half precision, or were not kept."""


class OutputError(EmdistillError):
    """An output folder that already holds something."""


class BusyError(OutputError):
    """Another process is at this run."""


class TrainingError(EmdistillError):
    """Training cannot go on: a loss became NaN or infinite."""


class Interrupted(Exception):
    """The user stopped the run; a checkpoint of the step reached is written."""


def nearest(name: str, names: Iterable[str]) -> str:
    """' Did you mean …?' with the most similar name, or nothing where none is similar."""
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def listing(names: Iterable[str]) -> str:
    """The first twenty names, each cut short, and how many there are besides."""
    every = [name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}…" for name in names]
    more = f", … ({len(every)} in all)" if len(every) > SHOWN_NAMES else ""
    return ", ".join(every[:SHOWN_NAMES]) + more


def shown(value: object) -> str:
    """A value as Python writes it, cut short: one cell may hold a whole document."""
    text = _SHORT.repr(value)
    return text if len(text) <= 2 * SHOWN_CHARACTERS else f"{text[: 2 * SHOWN_CHARACTERS]}…"
