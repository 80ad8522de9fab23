"""`flows.jsonl`: which layer taught which, over the steps of a run.

JSON Lines in UTF-8: one JSON object a line, one line a recorded step, in the order in which they were recorded.

    {"step": 750, "stage": "joint",
     "flows":           {"hidden_states": [[0.0833333, ...], ...], "attention_scores": [[...], ...]},
     "student_weights": {"hidden_states": [0.221, ...], "attention_scores": [...]},
     "teacher_weights": {"hidden_states": [0.074, ...], "attention_scores": [...]}}

step             optimizer steps done in this stage when the flow was recorded
stage            the training stage's name
flows            a matrix a loss term: rows are student layers, columns teacher layers, entries the mass moved;
                 a transport plan sums to 1, a fixed mapping to whatever mass it states
student_weights  layer weights a term after the step's cost attention, one number a student layer, so that the flow's
                 row sums are the weights before it; coupled terms repeat the same numbers
teacher_weights  the same, one number a teacher layer; a mapping without layer weights leaves both empty

Numbers carry 7 significant digits. A crash can cut off the last line only; readers drop such a line.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from emdistill.errors import DataError
from emdistill.files import written_whole

FIELDS = ("step", "stage", "flows", "student_weights", "teacher_weights")


@dataclass(frozen=True)
class FlowRecord:
    """The flows and layer weights at one step, by loss term; the module's docstring describes each field."""

    step: int
    stage: str
    flows: dict[str, list[list[float]]]
    student_weights: dict[str, list[float]] = field(default_factory=dict)
    teacher_weights: dict[str, list[float]] = field(default_factory=dict)


def append_flows(path: Path, record: FlowRecord) -> None:
    """Add one record as the last line of `path` and wait until it is on the disk.

    A line that an earlier crash cut off is removed first. Raises DataError for a record that could not be read back.
    """
    problem = _problem(record)
    if problem:
        raise DataError(f"step {record.step} of stage '{record.stage}' cannot be recorded: {problem}", file=path)
    with path.open("a+b") as file:
        if _ends_within_a_line(path):
            file.seek(0)
            file.truncate(len(_without_cut_line(file.read())))
        file.write(_to_line(record))
        file.flush()
        os.fsync(file.fileno())


def read_flows(path: Path) -> list[FlowRecord]:
    """All records of `path`, oldest first; a last line that a crash cut off is left out.

    Raises DataError for a missing file, and with file and line for any other line that is no record.
    """
    if not path.is_file():
        raise DataError(
            "there is no such file; a run writes its flows there once its first flow is recorded", file=path
        )
    lines = _without_cut_line(path.read_bytes()).split(b"\n")[:-1]
    return [_from_line(line, path, number) for number, line in enumerate(lines, start=1)]


def truncate_flows(path: Path, last_step: int, *, stage: str, finished_stages: Sequence[str] = ()) -> int:
    """Forget what was recorded after a checkpoint, so that a resumed run records it anew; returns how many it dropped.

    Kept are all records of `finished_stages`, and those of `stage` up to and including `last_step`.
    The file is replaced at once or not at all. A missing file is left missing. Raises DataError as `read_flows` does.
    """
    if not path.is_file():
        return 0
    records = read_flows(path)
    kept = [r for r in records if r.stage in finished_stages or (r.stage == stage and r.step <= last_step)]
    with written_whole(path) as part:
        part.write_bytes(b"".join(map(_to_line, kept)))
    return len(records) - len(kept)


def _ends_within_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _without_cut_line(content: bytes) -> bytes:
    # A record counts once its newline is written: only then is it known to be whole.
    return content[: content.rfind(b"\n") + 1]


def _to_line(record: FlowRecord) -> bytes:
    fields = {
        "step": record.step,
        "stage": record.stage,
        "flows": {term: [_rounded(row) for row in flow] for term, flow in record.flows.items()},
        "student_weights": {term: _rounded(weights) for term, weights in record.student_weights.items()},
        "teacher_weights": {term: _rounded(weights) for term, weights in record.teacher_weights.items()},
    }
    return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _rounded(numbers: Sequence[float]) -> list[float]:
    return [float(f"{number:.7g}") for number in numbers]


def _from_line(line: bytes, path: Path, number: int) -> FlowRecord:
    try:
        fields = json.loads(line.decode(), parse_constant=_refuse_constant)
    except ValueError as error:  # broken UTF-8 and broken JSON alike
        raise DataError(f"this line is no JSON: {error}", file=path, line=number) from error
    if not isinstance(fields, dict) or set(fields) != set(FIELDS):
        raise DataError(f"a record is an object with the fields {', '.join(FIELDS)}", file=path, line=number)
    record = FlowRecord(**fields)
    problem = _problem(record)
    if problem:
        raise DataError(problem, file=path, line=number)
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no finite number")


def _problem(record: FlowRecord) -> str | None:
    """What keeps a record from being one, or None."""
    if type(record.step) is not int or record.step < 0:
        return f"'step' is a count of steps, not {record.step!r}"
    if not isinstance(record.stage, str):
        return f"'stage' is a name, not {record.stage!r}"
    tables = {"student_weights": record.student_weights, "teacher_weights": record.teacher_weights}
    for name, table in {"flows": record.flows, **tables}.items():
        if not isinstance(table, Mapping):
            return f"'{name}' maps a term's name to its numbers"
    for term, flow in record.flows.items():
        if not (isinstance(flow, list) and flow and all(_is_numbers(row) and len(row) == len(flow[0]) for row in flow)):
            return f"the flow of '{term}' is no matrix of finite numbers with one row a student layer"
    for side, (name, table) in enumerate(tables.items()):
        for term, weights in table.items():
            if term not in record.flows:
                return f"'{name}' names the term '{term}', which has no flow"
            layers = (len(record.flows[term]), len(record.flows[term][0]))[side]
            if not _is_numbers(weights) or len(weights) != layers:
                return f"'{name}' of '{term}' are not {layers} finite numbers, one a layer of its flow"
    return None


def _is_numbers(values: object) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    )
