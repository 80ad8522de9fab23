"""Logits as answers, by their link alone, whatever the task asks for.

Rows with one answer each have logits [rows, C]. Where rows have any number of answers, logits and labels are `ragged`:
an array [rows] of arrays, so that rows are chosen as usual; `flat` gives all answers, [A, C], one below the other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax

from emdistill.errors import ModelError, listing
from emdistill.states import Link

Array = NDArray[np.float64]
SUREST = 1e-6  # what a probability of 0 is taken for


def ragged(rows: Sequence[Any]) -> NDArray[np.object_]:
    """Rows of any lengths as one array [rows] of arrays."""
    array = np.empty(len(rows), dtype=object)
    for place, row in enumerate(rows):
        array[place] = row
    return array


def flat(rows: NDArray[Any]) -> NDArray[Any]:
    """All answers of all rows: [A, …] of ragged ones; others as they are."""
    return np.concatenate(list(rows)) if rows.dtype == object else rows


def each_row(function: Callable[..., Any], *logits: NDArray[Any]) -> NDArray[Any]:
    """function(logits [A, C], …) of each row where they are ragged, else of all rows [n, C] at once."""
    if logits[0].dtype == object:
        return ragged([function(*rows) for rows in zip(*logits, strict=True)])
    return np.asarray(function(*logits))


def check_finite(logits: NDArray[Any], lines: Sequence[int] = ()) -> None:
    """Raise ModelError for NaN or infinite logits of rows, which are no answers; lines: where the rows stand."""
    finite = np.array([np.isfinite(row).all() for row in logits]) if logits.dtype == object else np.isfinite(logits)
    spoiled = np.flatnonzero(~finite.reshape(len(logits), -1).all(axis=1))
    if len(spoiled):
        which = listing(str(lines[int(row)] if lines else row + 1) for row in spoiled)
        raise ModelError(
            f"the model's outputs are NaN or infinite for {len(spoiled)} of {len(logits)} rows "
            f"({'lines' if lines else 'rows'} {which}); its weights are damaged, or the precision is too low: score it "
            "in float32"
        )


def probabilities(logits: NDArray[Any], link: Link) -> Array:
    """Probabilities [n, C] of logits [n, C]: softmax over C, or the sigmoid of each; scores as they are."""
    if link == "identity":
        return np.asarray(logits, dtype=np.float64)
    if link == "sigmoid":
        return np.asarray(expit(np.asarray(logits, dtype=np.float64)))
    return np.asarray(softmax(logits, axis=-1))


def as_logits(shares: NDArray[Any], link: Link) -> Array:
    """Logits that `probabilities` turns back into these shares [..., C], none nearer to 0 (or to 1) than SUREST."""
    shares = np.asarray(shares, dtype=np.float64)
    if link == "identity":
        return shares
    if link == "sigmoid":
        return np.asarray(logit(np.clip(shares, SUREST, 1 - SUREST)))
    return np.asarray(np.log(np.clip(shares, SUREST, 1.0)))


def agreement(teacher: NDArray[Any], student: NDArray[Any], link: Link) -> float:
    """Share of equal answers: of classes, of decisions for each label, of likeliest starts and ends together.

    Of scores Pearson's correlation, the mean over several ones.
    """
    if link == "positions":
        rows = zip(teacher, student, strict=True)
        return float(np.mean([(one.argmax(axis=0) == other.argmax(axis=0)).all() for one, other in rows]))
    teacher, student = flat(teacher), flat(student)
    if link == "softmax":
        return float((teacher.argmax(-1) == student.argmax(-1)).mean())
    if link == "sigmoid":
        return float(((teacher > 0) == (student > 0)).mean())
    columns = zip(teacher.T.astype(np.float64), student.T.astype(np.float64), strict=True)
    return float(np.mean([np.corrcoef(*pair)[0, 1] if np.ptp(pair, axis=1).all() else 0.0 for pair in columns]))
