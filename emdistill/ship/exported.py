"""A student as ONNX graphs: written with all that runs them without PyTorch, measured beside it, and judged."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.console import status
from emdistill.models.encoder import Classifier
from emdistill.models.inputs import longest_text
from emdistill.runs.describe import versions
from emdistill.runs.gate_record import GateRecord
from emdistill.ship.footprint import Footprint
from emdistill.ship.gate import HeadVariants, Limits, judge, judge_heads
from emdistill.ship.int8_choice import Quantised, Sample, quantize_best, training_sample
from emdistill.ship.measurement import (
    Variant,
    busy_notes,
    machine,
    measure_footprints,
    measure_latencies,
    onednn_note,
    torch_run,
    variant_records,
    weight_files,
)
from emdistill.ship.onnx import (
    PACKAGES,
    export_onnx,
    head_output,
    open_onnx,
    output_names,
    reads_token_types,
    session_outputs,
)
from emdistill.ship.onnx_folder import INT8, MODEL, write_onnx_folder
from emdistill.ship.quantize import Bits
from emdistill.ship.subject import SeveralTasks, Subject
from emdistill.tasks.answers import flat
from emdistill.training.evaluate import predict_logits

Exported = Subject | SeveralTasks


def write_exported(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sample],
    *,
    max_drop: float,
    threads: int,
    bits: Bits | None = None,
) -> Quantised | None:
    """Write model.onnx and, where there are samples, model_int8.onnx; with tokenizer, config and example.

    samples  of every task that the graph answers; other arguments as of quantize_best
    None where nothing can stay in int8.
    """
    # What the tokenizer never tells apart in PyTorch is not to be told apart in ONNX.
    token_types = reads_token_types(model) and "token_type_ids" in tokenizer.model_input_names
    with status(f"writing {MODEL}"):
        export_onnx(model, folder / MODEL, token_types=token_types)
    quantised = None
    if samples:
        with status(f"writing {INT8}"):
            quantised = quantize_best(
                folder / MODEL, folder / INT8, samples, max_drop=max_drop, threads=threads, bits=bits
            )
    write_onnx_folder(folder, model, tokenizer)
    return quantised


def samples_of(subject: Exported) -> list[Sample]:
    """Training rows of every task, by which the int8 graph is chosen."""
    tokenizer = subject.student.tokenizer
    if isinstance(subject, Subject):
        return [training_sample(subject.data, tokenizer, subject.max_length)]
    return [
        training_sample(data, tokenizer, subject.max_length(task), head_output(task))
        for task, data in subject.data.items()
    ]


def judge_exported(
    subject: Exported,
    folder: Path,
    quantised: Quantised | None,
    limits: Limits,
    *,
    threads: int,
    notes: Sequence[str] = (),
) -> GateRecord:
    """Score, time and load the graphs of a folder beside PyTorch, and hold them against the limits.

    Of several tasks the metric is the mean over them, and a limit on the drop holds for it and for each task.
    """
    if isinstance(subject, Subject):
        return _judge_one(subject, folder, quantised, limits, threads, notes)
    return _judge_several(subject, folder, quantised, limits, threads, notes)


def _judge_one(
    subject: Subject, folder: Path, quantised: Quantised | None, limits: Limits, threads: int, asides: Sequence[str]
) -> GateRecord:
    task, examples = subject.data.task, next(iter(subject.data.evaluation.values()))
    variants = {
        name: _in_pytorch(classifier, examples, subject.max_length, f"{name} on dev")
        for name, classifier in (("teacher", subject.teacher), ("student", subject.student))
        if classifier is not None
    }
    with status("scoring the exported models on dev"):
        variants |= _in_onnx(folder, subject.student, quantised, examples, subject.max_length, threads)
    measured = {"longest": subject.longest, "threads": threads}
    with status("timing all of them in turns"):
        with busy_notes(threads) as busy:
            latencies = measure_latencies(variants, examples, **measured)
        yardstick = next(iter(variants))
        aside = onednn_note(yardstick, variants[yardstick], examples, **measured)
    with status("loading each in a process of its own"):
        footprints = measure_footprints(variants, examples, **measured)
    notes = [*busy, aside, *asides, *dict.fromkeys(footprint.note for footprint in footprints.values())]
    return judge(
        variant_records(variants, task, task.gold(examples), latencies, footprints),
        limits,
        metric=task.metrics[0],
        dev_rows=len(examples),
        versions=_versions(),
        machine=machine(threads),
        logit_size=_logit_size(variants["student"]),
        notes=[note for note in notes if note],
    )


def _judge_several(
    subject: SeveralTasks,
    folder: Path,
    quantised: Quantised | None,
    limits: Limits,
    threads: int,
    asides: Sequence[str],
) -> GateRecord:
    source, model, tokenizer = subject.student.source, subject.student.model, subject.student.tokenizer
    examples = {task: next(iter(data.evaluation.values())) for task, data in subject.data.items()}
    variants: dict[str, dict[str, Variant]] = {}
    with status("scoring every head on dev"):
        for task, rows in examples.items():
            head, length = Classifier(source, subject.model(task), tokenizer), subject.max_length(task)
            # What is timed is the answers of all heads.
            variants[task] = {"student": replace(_in_pytorch(head, rows, length), run=torch_run(model))}
            variants[task] |= _in_onnx(folder, subject.student, quantised, rows, length, threads, head=task)
    first = next(iter(variants))
    with status("timing all of them in turns"), busy_notes(threads) as busy:
        latencies = measure_latencies(variants[first], examples[first], longest=longest_text(model), threads=threads)
    nothing = dict.fromkeys(latencies, Footprint(note=None))
    measured = {
        name: HeadVariants(
            variant_records(own, task, task.gold(examples[name]), latencies, nothing),
            metric=task.metrics[0],
            dev_rows=len(examples[name]),
            logit_size=_logit_size(own["student"]),
        )
        for name, own in variants.items()
        for task in [subject.data[name].task]
    }
    return judge_heads(measured, limits, versions=_versions(), machine=machine(threads), notes=[*busy, *asides])


def _in_pytorch(classifier: Classifier, examples: Dataset, max_length: int, description: str = "") -> Variant:
    source, model, tokenizer = classifier.source, classifier.model, classifier.tokenizer
    file, size = weight_files(source, model)
    predicted = predict_logits(model, tokenizer, examples, max_length=max_length, description=description)
    return Variant("PyTorch", source, file, size, predicted, torch_run(model), tokenizer)


def _in_onnx(
    folder: Path,
    student: Classifier,
    quantised: Quantised | None,
    examples: Dataset,
    max_length: int,
    threads: int,
    head: str | None = None,
) -> dict[str, Variant]:
    """The graphs of a folder by the name of their form; of several heads one is scored, and all are run."""

    def variant(file: str) -> Variant:
        path = folder / file
        graph = open_onnx(path, threads=threads, head=head)
        predicted = graph.predict_logits(examples, max_length=max_length)
        run = partial(session_outputs, graph.session, outputs=output_names(student.model))
        return Variant("ONNX Runtime", str(path), file, path.stat().st_size, predicted, run, student.tokenizer)

    variants = {"onnx": variant(MODEL)}
    if quantised is not None:
        variants["int8"] = replace(variant(INT8), quantised=quantised)
    return variants


def _logit_size(variant: Variant) -> float:
    return max(1.0, float(np.abs(flat(variant.predicted)).max()))


def _versions() -> dict[str, str]:
    return versions() | {package: str(import_module(package).__version__) for package in PACKAGES}
