"""A student of several tasks as one ONNX graph with an output per head; each head is judged on its own task."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
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
from emdistill.runs.gate_record import GATE, GateRecord, TimedCase, VariantRecord, write_gate
from emdistill.runs.reading import recall_reading
from emdistill.runs.record import RUN_FILE, RunRecord, read_run
from emdistill.ship.footprint import Footprint
from emdistill.ship.gate import Limits, judge
from emdistill.ship.measurement import Batch, Variant, machine, measure_latencies, variant_records, weight_files
from emdistill.ship.onnx import PACKAGES, export_onnx, head_output, open_onnx, reads_token_types
from emdistill.ship.onnx_folder import CARD, MODEL, write_onnx_folder
from emdistill.show.cards import heads_card
from emdistill.tasks.mixture import MEAN, joint_scores
from emdistill.tasks.task import Task, TaskData
from emdistill.training import predict_logits


@dataclass(frozen=True)
class Head:
    """A task of the student with the rows that it is scored on."""

    task: Task
    examples: Dataset
    max_length: int
    variants: dict[str, Variant]


def several_tasks(run: str) -> RunRecord | None:
    """The record of a run whose student has learned several tasks; None for anything else."""
    folder = Path(run)
    record = read_run(folder) if (folder / RUN_FILE).is_file() else None
    return record if record is not None and record.tasks else None


def export_heads(
    run: str, record: RunRecord, place: Path, limits: Limits, *, data: str | None, threads: int
) -> GateRecord:
    """Export all heads as one graph in float32, and measure it; the gate's metric is the mean over tasks.

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
            write_onnx_folder(part, model, tokenizer)
        with console.status("scoring every head on dev"):
            heads = {task: _head(model, task, sets[task], folder, part, tokenizer, threads) for task in sets}
        with console.status("timing both in turns"):
            first = next(iter(heads.values()))
            latencies = measure_latencies(first.variants, first.examples, longest=longest_text(model), threads=threads)
        gate = _judged(heads, limits, latencies, threads)
        (part / CARD).write_text(heads_card(gate, record), encoding="utf-8")
        write_gate(part / GATE.name, gate)
    return gate


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
    model: MultiTaskModel, task: str, data: TaskData, folder: Path, part: Path, tokenizer: Any, threads: int
) -> Head:
    """The answers of one head, in PyTorch and in ONNX Runtime."""
    one, examples = model.of(task), next(iter(data.evaluation.values()))
    length = min(recall_reading(one).max_length, longest_text(one))
    onnx = open_onnx(part / MODEL, threads=threads, head=task)
    outputs = [head_output(name) for name in model.outputs]
    file, size = weight_files(str(folder), model)

    def all_heads(batch: Batch) -> object:
        with torch.inference_mode():
            return model.answers({name: torch.from_numpy(rows) for name, rows in batch.items()})

    def all_outputs(batch: Batch) -> object:
        fed = {item.name: batch[item.name] for item in onnx.session.get_inputs()}
        return onnx.session.run(outputs, fed)

    make = partial(Variant, tokenizer=tokenizer)
    variants = {
        "student": make(
            "PyTorch", str(folder), file, size, predict_logits(one, tokenizer, examples, max_length=length), all_heads
        ),
        "onnx": make(
            "ONNX Runtime", str(part / MODEL), MODEL, (part / MODEL).stat().st_size,
            onnx.predict_logits(examples, max_length=length), all_outputs,
        ),
    }  # fmt: skip
    return Head(data.task, examples, length, variants)


def _judged(
    heads: Mapping[str, Head], limits: Limits, latencies: Mapping[str, list[TimedCase]], threads: int
) -> GateRecord:
    """The gate of the mean over tasks, with what fails on any one of them."""
    nothing = dict.fromkeys(latencies, Footprint(note=None))
    here = partial(judge, limits=limits, versions=versions() | _packages(), machine=machine(threads))
    records: dict[str, dict[str, VariantRecord]] = {}
    gates = {}
    for task, head in heads.items():
        predicted = head.variants["student"].predicted
        records[task] = variant_records(head.variants, head.task, head.task.gold(head.examples), latencies, nothing)
        gates[task] = here(
            records[task],
            metric=head.task.metrics[0],
            dev_rows=len(head.examples),
            logit_size=max(1.0, float(np.abs(np.concatenate([*predicted], axis=None)).max())),
        )
    metrics = {task: head.task.metrics[0] for task, head in heads.items()}
    together = {}
    for name in latencies:
        scores = joint_scores({task: records[task][name].scores for task in heads}, metrics)
        widest = max(
            (records[task][name] for task in heads), key=lambda each: each.logits.largest if each.logits else 0
        )
        together[name] = replace(widest, scores=scores, drop_standard_error=None)
    rows = sum(len(head.examples) for head in heads.values())
    gate = here(together, metric=MEAN, dev_rows=rows, logit_size=np.inf)
    failures = {name: list(reasons) for name, reasons in gate.verdict.failures.items()}
    for task, own in gates.items():
        for name, reasons in own.verdict.failures.items():
            failures.setdefault(name, []).extend(f"{task}: {reason}" for reason in reasons)
    failed = "onnx" in failures
    verdict = replace(gate.verdict, go=not failed, ship=None if failed else "onnx", failures=failures)
    return replace(gate, verdict=verdict)


def _packages() -> dict[str, str]:
    return {package: str(import_module(package).__version__) for package in PACKAGES}
