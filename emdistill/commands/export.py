"""`emdistill export`: a student becomes a folder that runs without PyTorch, measured here and judged by limits."""

from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from emdistill.config import as_option, check_limits
from emdistill.console import Terminal, print_table, say
from emdistill.errors import ConfigError
from emdistill.files import folder_written_whole
from emdistill.runs.gate_record import GATE as GATE_FILE
from emdistill.runs.gate_record import GateRecord, write_gate
from emdistill.runs.places import check_replaceable
from emdistill.runs.reading import recall_reading
from emdistill.runs.record import RUN_FILE
from emdistill.ship.exported import judge_exported, samples_of, write_exported
from emdistill.ship.gate import Limits
from emdistill.ship.int8_choice import MAX_DROP_ON_TRAIN
from emdistill.ship.onnx import check_onnx_packages
from emdistill.ship.onnx_folder import CARD, CONFIG, EXAMPLE, INT8, MODEL, TOKENIZER, check_shippable, put_first
from emdistill.ship.quantize import Bits
from emdistill.ship.subject import SeveralTasks, Subject, read_several, read_subject, several_tasks
from emdistill.show.cards import Reads, heads_card, onnx_card
from emdistill.show.gate_tables import gate_tables, verdict_lines

GATE = GATE_FILE.name
OWN_FILES = {MODEL, INT8, TOKENIZER, CONFIG, EXAMPLE, CARD, GATE}


def export(
    run: str,
    /,
    onnx: bool = False,
    int8: bool = False,
    teacher: str | None = None,
    data: str | None = None,
    dev: str | None = None,
    task: str | None = None,
    output: str | None = None,
    max_latency_ms: float | None = None,
    max_size_mb: float | None = None,
    max_drop: float | None = None,
    max_drop_from_teacher: float | None = None,
    threads: int | None = None,
    weight_bits: Bits | None = None,
    overwrite: bool = False,
) -> GateRecord:
    """Export a student, measure it beside its PyTorch form and its teacher, and judge it.

    Returns what gate.json holds. Raises an EmdistillError before anything expensive where an input cannot be used; the
    output folder is written whole, or stays as it was.

    Args:
        run: folder of a run, or of any classifier, which needs --data to be scored on.
        onnx: write model.onnx, in float32.
        int8: write model_int8.onnx too.
        teacher: folder or hub id of the teacher, if it has moved since the run.
        data: the data, if they have moved since the run.
        dev: file of the development set, if it has moved since the run.
        task: a task's name, for a classifier that no run made.
        output: folder to write; RUN/onnx if not given.
        max_latency_ms: most milliseconds (95th percentile) for one sentence of 128 tokens.
        max_size_mb: most MB (10⁶ bytes) of the model file.
        max_drop: most points (hundredths) of the task's first metric below the PyTorch student's.
        max_drop_from_teacher: most points below the teacher's.
        threads: CPU threads of every runtime; as many as PyTorch takes if not given.
        weight_bits: of int8: 7 to serve on processors without int8 instructions (VNNI), where 8 may overflow; if
            not given 7 on such a one, else 8.
        overwrite: replace an export that stands in the output folder.
    """
    limits = Limits(max_latency_ms, max_size_mb, max_drop, max_drop_from_teacher)
    if not (onnx or int8):
        raise ConfigError("say what to export: --onnx, or --int8, which writes both")
    check_limits(threads=threads)
    threads = threads or torch.get_num_threads()
    check_onnx_packages()
    place = Path(output).resolve() if output is not None else Path(run) / "onnx"
    check_replaceable(place, OWN_FILES, GATE, "an export", overwrite=overwrite)
    subject: Subject | SeveralTasks
    if (record := several_tasks(run)) is not None:
        _check_several({"teacher": teacher, "dev": dev, "task": task}, limits)
        subject = read_several(run, record, data)
    else:
        subject = read_subject(run, teacher=teacher, data=data, dev=dev, task=task)
        if max_drop_from_teacher is not None and subject.teacher is None:
            raise ConfigError("--max-drop-from-teacher needs a teacher, and none is known here; name it with --teacher")
    check_shippable(subject.student.tokenizer)
    return export_subject(subject, place, limits, int8=int8, threads=threads, weight_bits=weight_bits)


def export_subject(
    subject: Subject | SeveralTasks,
    place: Path,
    limits: Limits,
    *,
    int8: bool,
    threads: int,
    weight_bits: Bits | None = None,
) -> GateRecord:
    """Export what is open already to the folder `place`, which is replaced whole, and judge it."""
    with folder_written_whole(place) as part:
        most = MAX_DROP_ON_TRAIN if limits.max_drop is None else limits.max_drop
        quantised = write_exported(
            part, subject.student.model, subject.student.tokenizer, samples_of(subject) if int8 else [],
            max_drop=most, threads=threads, bits=weight_bits,
        )  # fmt: skip
        notes = []
        if int8 and quantised is None:
            notes = [
                "no int8 model was written: whatever stays in float32, it costs more than "
                f"{most:g} points on training rows"
            ]
        gate = judge_exported(subject, part, quantised, limits, threads=threads, notes=notes)
        if gate.verdict.ship == "int8":
            put_first(part, INT8)
        (part / CARD).write_text(_card(gate, subject), encoding="utf-8")
        write_gate(part / GATE, gate)
    _show(gate, place)
    return gate


@wraps(export)
def command(run: str, **options: Any) -> int:
    return 0 if export(run, **options).verdict.go else 1


def _check_several(options: Mapping[str, str | None], limits: Limits) -> None:
    """Refuse what a student of several tasks is not exported with."""
    if given := [as_option(name) for name, value in options.items() if value is not None]:
        raise ConfigError(f"{', '.join(given)}: of several tasks, the file of --data says it for each")
    if limits.max_drop_from_teacher is not None:
        raise ConfigError("--max-drop-from-teacher: several tasks have several teachers, which are not measured here")


def _card(gate: GateRecord, subject: Subject | SeveralTasks) -> str:
    if isinstance(subject, SeveralTasks):
        return heads_card(gate, subject.record)
    task = subject.data.task
    length = min(recall_reading(subject.student.model).max_length, subject.max_length)
    return onnx_card(gate, Reads(task.name, task.kind, task.labels, task.text_pair is not None, length))


def _show(gate: GateRecord, place: Path) -> None:
    console = Terminal(soft_wrap=False, highlight=False)
    for table in gate_tables(gate):
        print_table(table, console)
    for line in verdict_lines(gate):
        say(line)
    say(f"{place}: the exported model, with an example and gate.json, the record of these figures")
    if (place.parent / RUN_FILE).is_file() and place.name == GATE_FILE.parent.name:
        say(f"emdistill report {place.parent} puts them on the run's page")
