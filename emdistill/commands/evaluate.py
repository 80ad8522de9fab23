"""`emdistill evaluate`: the scores of a saved model on labelled data."""

from __future__ import annotations

from functools import wraps
from typing import Any

from emdistill.ship.apply import evaluate_model


@wraps(evaluate_model)
def command(**options: Any) -> str:
    return "\n".join(f"{name}\t{value:.4f}" for name, value in evaluate_model(**options).items())
