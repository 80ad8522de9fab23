"""A student of several tasks as one ONNX graph with an output per head; each head is judged on its own task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console

from emdistill.data.labels import as_the_model_counts
from emdistill.data.mixture_file import read_mixture
from emdistill.errors import ConfigError, ModelError
from emdistill.files import folder_written_whole
from emdistill.models.encoder import load_tasks, load_tokenizer
from emdistill.models.inputs import longest_text
from emdistill.models.multi_task import MultiTaskModel
from emdistill.models.teacher import Teacher
from emdistill.runs.describe import versions
from emdistill.runs.gate_record import GATE, GateRecord, TimedCase, write_gate
from emdistill.runs.reading import recall_reading
from emdistill.runs.record import RUN_FILE, RunRecord, read_run
from emdistill.ship.footprint import Footprint
from emdistill.ship.gate import HeadVariants, Limits, judge_heads
from emdistill.ship.int8_choice import MAX_DROP_ON_TRAIN, Quantised, quantize_best, training_sample
from emdistill.ship.measurement import Batch, Variant, machine, measure_latencies, variant_records, weight_files
from emdistill.ship.onnx import PACKAGES, export_onnx, head_output, open_onnx, reads_token_types, session_outputs
from emdistill.ship.onnx_folder import CARD, INT8, MODEL, put_first, write_onnx_folder
from emdistill.ship.quantize import Bits
from emdistill.ship.subject import Classifier
from emdistill.show.cards import heads_card
from emdistill.tasks.answers import flat
from emdistill.tasks.task import Task, TaskData
from emdistill.training import predict_logits


@dataclass(frozen=True)
class Head:
    """A task of the student with the rows that it is scored on."""

    task: Task
    examples: Dataset
    variants: dict[str, Variant]


def several_tasks(run: str) -> RunRecord | None:
    """The record of a run whose student has learned several tasks; None for anything else."""
    folder = Path(run)
    record = read_run(folder) if (folder / RUN_FILE).is_file() else None
    return record if record is not None and record.tasks else None


def export_heads(
    run: str, record: RunRecord, place: Path, limits: Limits, *, data: str | None, int8: bool, threads: int, bits: Bits
) -> GateRecord:
    """Export all heads as one graph, in float32 and perhaps in int8, and measure it; the metric is the mean over tasks.

    A limit on the drop holds for the mean and for each task. Raises as `export` does.
    """
    if not record.is_finished:
        raise ConfigError(f"{run} is a run that has not finished; finish it first, with --resume")
    folder = Path(run) / "student"
    model, tokenizer = load_tasks(folder), load_tokenizer(folder)
    sets = _data(model, Path(data or record.config["data"]), str(folder))
    console = Console(stderr=True, highlight=False)
    with folder_written_whole(place) as part:
        token_types = reads_token_types(model) and "token_type_ids" in tokenizer.model_input_names
        with console.status(f"writing {MODEL}"):
            export_onnx(model, part / MODEL, token_types=token_types)
        quantised, notes = None, []
        if int8:
            most = MAX_DROP_ON_TRAIN if limits.max_drop is None else limits.max_drop
            with console.status(f"writing {INT8}"):
                samples = [
                    training_sample(own, tokenizer, _length(model.of(task)), head_output(task))
                    for task, own in sets.items()
                ]
                quantised = quantize_best(part / MODEL, part / INT8, samples, max_drop=most, threads=threads, bits=bits)
            notes += [no_int8(most)] * (quantised is None)
        write_onnx_folder(part, model, tokenizer)
        with console.status("scoring every head on dev"):
            student = Classifier(str(folder), model, tokenizer)
            heads = {task: _head(student, task, own, part, quantised, threads) for task, own in sets.items()}
        with console.status("timing all of them in turns"):
            first = next(iter(heads.values()))
            latencies = measure_latencies(first.variants, first.examples, longest=longest_text(model), threads=threads)
        gate = _judged(heads, limits, latencies, threads, notes)
        if gate.verdict.ship == "int8":
            put_first(part, INT8)
        (part / CARD).write_text(heads_card(gate, record), encoding="utf-8")
        write_gate(part / GATE.name, gate)
    return gate


def no_int8(most: float) -> str:
    """What is said where nothing could stay in int8."""
    return f"no int8 model was written: whatever stays in float32, it costs more than {most:g} points on training rows"


def _length(model: Any) -> int:
    return min(recall_reading(model).max_length, longest_text(model))


def _data(model: MultiTaskModel, file: Path, source: str) -> dict[str, TaskData]:
    """The data of each task, labels counted as its head counts them."""
    sets = {}
    entries = {entry.name: entry for entry in read_mixture(file).tasks}
    if absent := model.outputs.keys() - entries.keys():
        raise ConfigError(f"{file} names no task {min(absent)}, which {source} answers; name its file with --data")
    for task in model.outputs:
        entry, one = entries[task], Teacher(model.of(task))
        examples = recall_reading(one.model).read(
            entry.data, task=entry.task, dev=entry.dev, kind=entry.kind, evaluating=True
        )
        sets[task] = as_the_model_counts(examples, one.labels, one.kind, model=source, error=ModelError)
    return sets


def _head(
    student: Classifier, task: str, data: TaskData, part: Path, quantised: Quantised | None, threads: int
) -> Head:
    """The answers of one head, in PyTorch and in ONNX Runtime; what is timed is the answers of all heads."""
    model: Any = student.model
    tokenizer = student.tokenizer
    one, examples = model.of(task), next(iter(data.evaluation.values()))
    length, outputs = _length(one), [head_output(name) for name in model.outputs]
    file, size = weight_files(student.source, model)

    def all_heads(batch: Batch) -> object:
        with torch.inference_mode():
            return model.answers({name: torch.from_numpy(rows) for name, rows in batch.items()})

    def exported(file: str) -> Variant:
        graph = open_onnx(part / file, threads=threads, head=task)
        return Variant(
            "ONNX Runtime", str(part / file), file, (part / file).stat().st_size,
            graph.predict_logits(examples, max_length=length),
            lambda batch: session_outputs(graph.session, batch, outputs), tokenizer,
        )  # fmt: skip

    predicted = predict_logits(one, tokenizer, examples, max_length=length)
    variants = {
        "student": Variant("PyTorch", student.source, file, size, predicted, all_heads, tokenizer),
        "onnx": exported(MODEL),
    }
    if quantised is not None:
        variants["int8"] = replace(exported(INT8), method=quantised.method, kept_in_float32=quantised.in_float32)
    return Head(data.task, examples, variants)


def _judged(
    heads: Mapping[str, Head],
    limits: Limits,
    latencies: Mapping[str, list[TimedCase]],
    threads: int,
    notes: Sequence[str],
) -> GateRecord:
    """The gate of all heads, each with what was measured of it."""
    nothing = dict.fromkeys(latencies, Footprint(note=None))
    measured = {
        task: HeadVariants(
            variant_records(head.variants, head.task, head.task.gold(head.examples), latencies, nothing),
            metric=head.task.metrics[0],
            dev_rows=len(head.examples),
            logit_size=max(1.0, float(np.abs(flat(head.variants["student"].predicted)).max())),
        )
        for task, head in heads.items()
    }
    return judge_heads(measured, limits, versions=versions() | _packages(), machine=machine(threads), notes=notes)


def _packages() -> dict[str, str]:
    return {package: str(import_module(package).__version__) for package in PACKAGES}
