"""What every search for students leaves behind: what was asked, where, the teacher's scores, notes and the verdict."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

from pydantic import FiniteFloat

from emdistill.errors import OutputError, differences
from emdistill.files import write_json
from emdistill.runs.gate_record import Machine
from emdistill.runs.record import read_record

Form = Literal["onnx", "int8"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(kw_only=True)
class SearchRecord:
    """What all searches record; FILE in the search's folder holds it, and it grows while the search goes on.

    settings   options and hashes of what was read: another command does not go on with this search
    teacher    its scores on dev, by metric
    """

    FILE: ClassVar[str]

    command: str
    settings: dict[str, Any]
    task: str
    metric: str
    machine: Machine
    status: Literal["searching", "finished"] = "searching"
    dev_rows: int = 0
    teacher: dict[str, FiniteFloat] = field(default_factory=dict)
    verdict: str = ""
    notes: list[str] = field(default_factory=list)
    version: int = 1


Record = TypeVar("Record", bound=SearchRecord)


def write_search(folder: Path, record: SearchRecord) -> None:
    """Write the record whole or not at all."""
    write_json(folder / record.FILE, asdict(record))


def read_search(folder: Path, kind: type[Record]) -> Record | None:
    """The record of a folder; None where there is none. Raises OutputError if broken."""
    path = folder / kind.FILE
    return read_record(path, kind) if path.exists() else None


def taken_up(folder: Path, record: Record, **now: Any) -> Record:
    """The search that stands in the folder, to go on with under this command and `now`; the new one where none does.

    Raises OutputError where it is one of other settings, naming them.
    """
    before = read_search(folder, type(record))
    if before is None:
        return record
    if other := differences(before.settings, json.loads(json.dumps(record.settings))):
        raise OutputError(
            f"{folder} holds a search of other settings:\n{other}\n"
            "go on with it as it was started, replace it with --overwrite, or choose another --output"
        )
    return replace(before, command=record.command, **now)
