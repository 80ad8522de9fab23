"""`emdistill export`: a student becomes a folder that runs without PyTorch, measured here and judged by limits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console

from emdistill.commands._export_heads import export_heads, no_int8, several_tasks
from emdistill.config import check_limits
from emdistill.console import print_table, say
from emdistill.errors import ConfigError, OutputError
from emdistill.files import folder_written_whole
from emdistill.runs.describe import versions
from emdistill.runs.gate_record import GATE as GATE_FILE
from emdistill.runs.gate_record import GateRecord, write_gate
from emdistill.runs.open_run import check_writable
from emdistill.runs.reading import recall_reading
from emdistill.runs.record import RUN_FILE
from emdistill.ship.gate import Limits, judge
from emdistill.ship.int8_choice import MAX_DROP_ON_TRAIN, quantize_best, training_sample
from emdistill.ship.measurement import (
    Variant,
    busy_note,
    machine,
    measure_footprints,
    measure_latencies,
    onednn_note,
    read_cpu_clock,
    torch_run,
    variant_records,
    weight_files,
)
from emdistill.ship.onnx import PACKAGES, check_onnx_packages, export_onnx, open_onnx, reads_token_types
from emdistill.ship.onnx_folder import CARD, CONFIG, EXAMPLE, INT8, MODEL, TOKENIZER, put_first, write_onnx_folder
from emdistill.ship.quantize import Bits
from emdistill.ship.subject import Classifier, Subject, read_subject
from emdistill.show.cards import Reads, onnx_card
from emdistill.show.gate_tables import gate_tables, verdict_lines
from emdistill.tasks.answers import flat
from emdistill.training import predict_logits

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
    weight_bits: Bits = 8,
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
        weight_bits: of int8: 7 to serve on processors without int8 instructions (VNNI), where 8 may overflow.
        overwrite: replace an export that stands in the output folder.
    """
    limits = Limits(max_latency_ms, max_size_mb, max_drop, max_drop_from_teacher)
    if not (onnx or int8):
        raise ConfigError("say what to export: --onnx, or --int8, which writes both")
    check_limits(threads=threads)
    threads = threads or torch.get_num_threads()
    check_onnx_packages()
    place = Path(output) if output is not None else Path(run) / "onnx"
    _check_place(place, overwrite=overwrite)
    if (several := several_tasks(run)) is not None:
        _check_several({"teacher": teacher, "dev": dev, "task": task}, limits)
        gate = export_heads(run, several, place, limits, data=data, int8=int8, threads=threads, bits=weight_bits)
        _show(gate, place)
        return gate
    subject = read_subject(run, teacher=teacher, data=data, dev=dev, task=task)
    if max_drop_from_teacher is not None and subject.teacher is None:
        raise ConfigError("--max-drop-from-teacher needs a teacher, and none is known here; name it with --teacher")

    console = Console(stderr=True, highlight=False)
    examples = next(iter(subject.data.evaluation.values()))
    variants = {
        name: _torch_variant(name, classifier, examples, subject.max_length)
        for name, classifier in (("teacher", subject.teacher), ("student", subject.student))
        if classifier is not None
    }
    with folder_written_whole(place) as part:
        model, tokenizer = subject.student.model, subject.student.tokenizer
        # What the tokenizer never tells apart in PyTorch is not to be told apart in ONNX.
        token_types = reads_token_types(model) and "token_type_ids" in tokenizer.model_input_names
        with console.status(f"writing {MODEL}"):
            export_onnx(model, part / MODEL, token_types=token_types)
        quantised, asides = None, []
        if int8:
            most = MAX_DROP_ON_TRAIN if max_drop is None else max_drop
            with console.status(f"writing {INT8}"):
                sample = training_sample(subject.data, tokenizer, subject.max_length)
                quantised = quantize_best(
                    part / MODEL, part / INT8, [sample], max_drop=most, threads=threads, bits=weight_bits
                )
            asides += [no_int8(most)] * (quantised is None)
        write_onnx_folder(part, model, tokenizer)
        with console.status("scoring the exported models on dev"):
            variants["onnx"] = _onnx_variant(part / MODEL, subject, examples, threads)
            if quantised is not None:
                variant = _onnx_variant(part / INT8, subject, examples, threads)
                variants["int8"] = replace(variant, method=quantised.method, kept_in_float32=quantised.in_float32)
        gate = _judge(variants, subject, examples, limits, threads=threads, console=console, asides=asides)
        if gate.verdict.ship == "int8":
            put_first(part, INT8)
        (part / CARD).write_text(onnx_card(gate, _reads(subject)), encoding="utf-8")
        write_gate(part / GATE, gate)
    _show(gate, place)
    return gate


def _reads(subject: Subject) -> Reads:
    task = subject.data.task
    length = min(recall_reading(subject.student.model).max_length, subject.max_length)
    return Reads(task.name, task.kind, task.labels, task.text_pair is not None, length)


def _check_several(options: Mapping[str, str | None], limits: Limits) -> None:
    """Refuse what a student of several tasks is not exported with."""
    if given := [f"--{name}" for name, value in options.items() if value is not None]:
        raise ConfigError(f"{', '.join(given)}: of several tasks, the file of --data says it for each")
    if limits.max_drop_from_teacher is not None:
        raise ConfigError("--max-drop-from-teacher: several tasks have several teachers, which are not measured here")


@wraps(export)
def command(run: str, **options: Any) -> int:
    return 0 if export(run, **options).verdict.go else 1


def _judge(
    variants: Mapping[str, Variant],
    subject: Subject,
    examples: Dataset,
    limits: Limits,
    *,
    threads: int,
    console: Console,
    asides: Sequence[str],
) -> GateRecord:
    """Time and load every variant, and hold it against the limits: what gate.json holds."""
    measured = {"longest": subject.longest, "threads": threads}
    here = machine(threads)
    with console.status("timing all of them in turns"):
        before = read_cpu_clock()
        latencies = measure_latencies(variants, examples, **measured)
        busy = busy_note(before, read_cpu_clock(), cores=here.cores, threads=threads)
        yardstick = next(iter(variants))
        aside = onednn_note(yardstick, variants[yardstick], examples, **measured)
    with console.status("loading each in a process of its own"):
        footprints = measure_footprints(variants, examples, **measured)
    task, labels = subject.data.task, subject.data.task.gold(examples)
    notes = [busy, aside, *asides, *dict.fromkeys(footprint.note for footprint in footprints.values())]
    return judge(
        variant_records(variants, task, labels, latencies, footprints),
        limits,
        metric=task.metrics[0],
        dev_rows=len(examples),
        versions={**versions(), **{package: str(import_module(package).__version__) for package in PACKAGES}},
        machine=here,
        logit_size=max(1.0, float(np.abs(flat(variants["student"].predicted)).max())),
        notes=[note for note in notes if note],
    )


def _check_place(place: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something, unless that is an export to be replaced."""
    if Path.cwd().is_relative_to(place.resolve()):
        raise OutputError(f"--output {place} is the folder that this command runs in; name one inside it")
    check_writable(place)
    check_writable(place.absolute().parent)  # where the folder is put in its place
    names = {item.name for item in place.iterdir()} if place.is_dir() else set()
    if foreign := sorted(names - OWN_FILES):
        raise OutputError(f"{place} holds {foreign[0]}, which is no part of an export; choose another --output")
    if names and GATE not in names:
        raise OutputError(f"{place} is not empty and holds no export; choose another --output")
    if names and not overwrite:
        raise OutputError(f"{place} already holds an export; --overwrite replaces it")


def _torch_variant(name: str, classifier: Classifier, examples: Dataset, max_length: int) -> Variant:
    source, model, tokenizer = classifier.source, classifier.model, classifier.tokenizer
    file, size = weight_files(source, model)
    predicted = predict_logits(model, tokenizer, examples, max_length=max_length, description=f"{name} on dev")
    return Variant("PyTorch", source, file, size, predicted, torch_run(model), tokenizer)


def _onnx_variant(path: Path, subject: Subject, examples: Dataset, threads: int) -> Variant:
    classifier = open_onnx(path, threads=threads)
    predicted = classifier.predict_logits(examples, max_length=subject.max_length)
    size = path.stat().st_size
    return Variant("ONNX Runtime", str(path), path.name, size, predicted, classifier.logits, subject.student.tokenizer)


def _show(gate: GateRecord, place: Path) -> None:
    console = Console(soft_wrap=False, highlight=False)
    for table in gate_tables(gate):
        print_table(table, console)
    for line in verdict_lines(gate):
        say(line)
    say(f"{place}: the exported model, with an example and gate.json, the record of these figures")
    if (place.parent / RUN_FILE).is_file() and place.name == GATE_FILE.parent.name:
        say(f"emdistill report {place.parent} puts them on the run's page")
