"""`emdistill predict`: a saved model's answer beside every row of a file."""

from __future__ import annotations

from functools import wraps
from typing import Any

from emdistill.ship.apply import predict_file


@wraps(predict_file)
def command(**options: Any) -> str:
    return f"{predict_file(**options)} rows written to {options['output']}"
