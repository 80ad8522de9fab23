"""`flows.jsonl`: which layer taught which, over the steps of a run.

JSON Lines in UTF-8: a JSON object per line, a line per recorded step, in the order in which they were recorded.

    {"step": 750, "stage": "joint",
     "flows":           {"hidden_states": [[0.0833333, ...], ...], "attention_scores": [[...], ...]},
     "student_weights": {"hidden_states": [0.221, ...], "attention_scores": [...]},
     "teacher_weights": {"hidden_states": [0.074, ...], "attention_scores": [...]}}

step             optimizer steps done in this stage when the flow was recorded
stage            the training stage's name
flows            a matrix per loss term: rows are student layers, columns teacher layers, entries the mass moved;
                 a transport plan sums to 1, a fixed mapping to whatever mass it states
student_weights  layer weights per term after the step's cost attention, one number per student layer; the flow's row
                 sums are the weights before it; coupled terms repeat the same numbers
teacher_weights  the same, one number per teacher layer; a mapping without layer weights leaves both empty

Numbers carry 7 significant digits. "crc32" comes last: the checksum of the line without it. A crash can cut off the
last line only; readers drop such a line.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, FiniteFloat, NonNegativeInt, Strict

from emdistill.errors import DataError, tell
from emdistill.files import append_line, sealed, unsealed, written_whole
from emdistill.values import parse_json, typed

FLOWS = "flows.jsonl"

Number = Annotated[FiniteFloat, Strict()]
Numbers = Annotated[list[Number], Field(min_length=1)]


@dataclass(frozen=True)
class FlowRecord:
    """The flows and layer weights at one step, by loss term; the module's docstring describes each field."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    step: Annotated[NonNegativeInt, Strict()]
    stage: str
    flows: dict[str, Annotated[list[Numbers], Field(min_length=1)]]
    student_weights: dict[str, Numbers] = field(default_factory=dict)
    teacher_weights: dict[str, Numbers] = field(default_factory=dict)


def append_flows(path: Path, record: FlowRecord) -> None:
    """Add one record as the last line of `path` and wait until it is on the disk.

    Raises DataError for a record that could not be read back.
    """
    line = _to_line(record)
    try:
        _checked(line)
    except ValueError as error:
        message = f"step {record.step} of stage '{record.stage}' cannot be recorded: {error}"
        raise DataError(message, file=path) from None
    append_line(path, line)


def read_flows(path: Path) -> list[FlowRecord]:
    """All records of `path`, oldest first; a last line that a crash cut off is left out.

    Raises DataError for a missing file, and with file and line for any other line that is no record.
    """
    if not path.is_file():
        raise DataError("there is no such file; a run writes it once its first flow is recorded", file=path)
    return [_from_line(line, path, number) for number, line in enumerate(_lines(path), start=1)]


def _lines(path: Path) -> list[bytes]:
    # A record counts once its newline is written: only then is it known to be whole.
    return path.read_bytes().split(b"\n")[:-1]


def truncate_flows(path: Path, last_step: int, *, stage: str, finished_stages: Sequence[str] = ()) -> None:
    """Forget what was recorded after a checkpoint, so that a resumed run records it anew.

    Kept are all records of `finished_stages`, and those of `stage` up to and including `last_step`.
    The file is replaced at once or not at all. A missing file is left missing; a damaged line is named and left out,
    as is one that a crash cut off.
    """
    if not path.is_file():
        return
    earlier = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            record = _from_line(line, path, number)
        except DataError as error:
            tell(f"{error}; it is left out")
            continue
        if record.stage in finished_stages or (record.stage == stage and record.step <= last_step):
            earlier.append(record)
    with written_whole(path) as part:
        part.write_bytes(b"".join(_to_line(record) + b"\n" for record in earlier))


def _to_line(record: FlowRecord) -> bytes:
    fields = asdict(record)
    for name in ("flows", "student_weights", "teacher_weights"):
        fields[name] = {term: _rounded(numbers) for term, numbers in fields[name].items()}
    return sealed(json.dumps(fields, ensure_ascii=False).encode())


def _rounded(numbers: Any) -> Any:
    return [_rounded(row) for row in numbers] if isinstance(numbers, list) else float(f"{numbers:.7g}")


def _from_line(line: bytes, path: Path, number: int) -> FlowRecord:
    try:
        return _checked(line)
    except ValueError as error:
        raise DataError(f"this line is no record of flows: {error}", file=path, line=number) from None


def _checked(line: bytes) -> FlowRecord:
    """Raises ValueError that names what keeps a line from being a record."""
    values = parse_json(unsealed(line))
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    record = typed(values, FlowRecord)
    for term, flow in record.flows.items():
        if any(len(row) != len(flow[0]) for row in flow):
            raise ValueError(f"the flow of '{term}' is no matrix with one row per student layer")
    for side, name in enumerate(("student_weights", "teacher_weights")):
        for term, weights in getattr(record, name).items():
            if term not in record.flows:
                raise ValueError(f"'{name}' names the term '{term}', which has no flow")
            layers = (len(record.flows[term]), len(record.flows[term][0]))[side]
            if len(weights) != layers:
                raise ValueError(f"'{name}' of '{term}' are not {layers} numbers, one per layer of its flow")
    return record
