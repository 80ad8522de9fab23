"""Measuring the variants of a student beside each other: scores, latency, size, and what loading each one takes."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.data.batches import tokenise
from emdistill.models.arithmetic import PRODUCTS, fast_float32, onednn_keeps_float32
from emdistill.models.multi_task import MultiTaskModel
from emdistill.models.size import model_size
from emdistill.models.stored_weights import weight_parts
from emdistill.runs.gate_record import Machine, TimedCase, VariantRecord
from emdistill.ship.footprint import Footprint, Runtime, measure_footprint
from emdistill.ship.gate import BATCHES, LENGTHS, drop_error, logit_difference
from emdistill.ship.int8_choice import Quantised
from emdistill.ship.latency import forward, summarise, time_in_turns, torch_threads
from emdistill.tasks.answers import agreement
from emdistill.tasks.task import Task

Batch = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Variant:
    """One form of the model, ready to be measured.

    source      the folder or hub id of a transformers model, or an .onnx file
    file        how the record names its file
    bytes       of the model file
    predicted   logits [rows, C] on the development set
    run         the logits of one batch, given as arrays [B, L]
    tokenizer   reads its texts
    quantised   how it was, if it was
    """

    runtime: Runtime
    source: str
    file: str
    bytes: int
    predicted: NDArray[np.float32]
    run: Callable[[Batch], object]
    tokenizer: PreTrainedTokenizerBase
    quantised: Quantised | None = None


def torch_run(model: PreTrainedModel) -> Callable[[Batch], object]:
    """A forward pass as its users run it, of several tasks through all heads: in inference mode, with PyTorch's own
    choice of kernels.
    """

    def run(batch: Batch) -> object:
        inputs = {name: torch.from_numpy(rows) for name, rows in batch.items()}
        with torch.inference_mode():
            return model.answers(inputs) if isinstance(model, MultiTaskModel) else forward(model, inputs)

    return run


def weight_files(source: str, model: PreTrainedModel) -> tuple[str, int]:
    """Name and bytes of a model's weights; of a model from the hub, the bytes of its parameters."""
    folder = Path(source).expanduser()
    if (whole := folder / "model.safetensors").is_file():
        return f"{folder.name}/{whole.name}", whole.stat().st_size
    if parts := weight_parts(folder):
        return f"{folder.name}/model-*.safetensors", sum(part.stat().st_size for part in parts)
    return source, model_size(model)


def machine(threads: int) -> Machine:
    """The processor that everything is measured on, and how much of it is used."""
    return Machine(processor_name(), os.cpu_count() or 1, threads)


def processor_name() -> str:
    """What the machine calls its processor."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown processor"


@dataclass(frozen=True)
class CpuClock:
    """Seconds so far: on the wall, and of all cores for every process and for this one."""

    wall: float
    everyone: float
    own: float


def read_cpu_clock() -> CpuClock | None:
    """The clock now; None on a system that does not tell."""
    statistics_file = Path("/proc/stat")
    if not statistics_file.is_file():
        return None
    user, nice, system, _, _, *more = map(int, statistics_file.read_text(encoding="ascii").split()[1:9])
    busy = user + nice + system + sum(more)  # all but idle and waiting for disks
    return CpuClock(time.perf_counter(), busy / os.sysconf("SC_CLK_TCK"), time.process_time())


def busy_note(before: CpuClock | None, after: CpuClock | None, *, cores: int, threads: int) -> str | None:
    """A sentence where other processes left fewer cores free, between two clocks, than there are threads."""
    if before is None or after is None or after.wall <= before.wall:
        return None
    others = (after.everyone - before.everyone - after.own + before.own) / (after.wall - before.wall)
    if others <= cores - 0.9 * min(threads, cores):
        return None
    return (
        f"other processes kept {others:.1f} of the {cores} cores busy while latency was measured, so it is worth "
        "little: measure again on an idle machine"
    )


@contextmanager
def busy_notes(threads: int) -> Iterator[list[str]]:
    """While latency is measured inside; at the end the list holds the note of `busy_note`, where there is one."""
    notes: list[str] = []
    before = read_cpu_clock()
    yield notes
    note = busy_note(before, read_cpu_clock(), cores=os.cpu_count() or 1, threads=threads)
    notes += [note] if note else []


def full_batch(examples: Dataset, tokenizer: PreTrainedTokenizerBase, batch: int, length: int) -> Batch:
    """So many rows of exactly `length` tokens, none of them padding: real texts that go on with those of further rows.

    One text again and again would have few tokens of its own, and tables of which few rows are read are too fast.
    """
    names = [name for name in ("text", "text_pair") if name in examples.column_names]
    some = examples.select_columns(names).select(range(min(len(examples), batch + length))).to_dict()
    texts = {name: [_going_on(some[name], start % len(examples), length) for start in range(batch)] for name in names}
    rows = tokenise(Dataset.from_dict(texts), tokenizer, length).remove_columns("length")
    return {
        name: np.stack([np.resize(np.asarray(row, dtype=np.int64), length) for row in rows[name]])
        for name in rows.column_names
    }


def _going_on(texts: Sequence[str], start: int, words: int) -> str:
    """The text at `start` and those behind it, round and round, until there are so many words."""
    parts: list[str] = []
    for text in islice(cycle(texts), start, start + words):
        parts.append(text)
        words -= len(text.split())
        if words <= 0:
            break
    return " ".join(parts)


def full_texts(examples: Dataset, tokenizer: PreTrainedTokenizerBase, count: int, length: int) -> Dataset:
    """So many texts, or pairs, of about `length` tokens, written back from real ones as full_batch makes them."""
    names = [name for name in ("text", "text_pair") if name in examples.column_names]
    parts = np.split(full_batch(examples, tokenizer, count, length)["input_ids"], len(names), axis=1)
    return Dataset.from_dict(
        {name: tokenizer.batch_decode(part, skip_special_tokens=True) for name, part in zip(names, parts, strict=True)}
    )


def measure_latencies(
    variants: Mapping[str, Variant], examples: Dataset, *, longest: int, threads: int, seconds: float = 2.0
) -> dict[str, list[TimedCase]]:
    """Every variant at batch 1 and 32, length 32 and 128 (or the longest the encoders read), in turns.

    seconds   at most so long per variant and case, but for three calls each
    """
    lengths = sorted({min(length, longest) for length in LENGTHS})
    cases: dict[str, list[TimedCase]] = {name: [] for name in variants}
    with torch_threads(threads):
        for batch, length in ((batch, length) for batch in BATCHES for length in lengths):
            calls = {
                name: partial(_run, variant, full_batch(examples, variant.tokenizer, batch, length))
                for name, variant in variants.items()
            }
            for name, times in time_in_turns(calls, seconds=seconds).items():
                cases[name].append(TimedCase(batch, length, **asdict(summarise(times, batch))))
    return cases


def _run(variant: Variant, inputs: Batch, _: int) -> object:
    return variant.run(inputs)


def measure_footprints(
    variants: Mapping[str, Variant], examples: Dataset, *, longest: int, threads: int
) -> dict[str, Footprint]:
    """Load time and peak memory of each variant, one fresh process after another."""
    length = min(longest, max(LENGTHS))
    footprints = {}
    for name, variant in variants.items():
        onnx = variant.runtime == "ONNX Runtime"
        tokenizer = Path(variant.source).parent / "tokenizer.json" if onnx else variant.source
        inputs = {key: rows.tolist() for key, rows in full_batch(examples, variant.tokenizer, 1, length).items()}
        footprints[name] = measure_footprint(variant.runtime, variant.source, tokenizer, inputs=inputs, threads=threads)
    return footprints


def variant_records(
    variants: Mapping[str, Variant],
    task: Task,
    labels: NDArray[Any],
    latencies: Mapping[str, Sequence[TimedCase]],
    footprints: Mapping[str, Footprint],
) -> dict[str, VariantRecord]:
    """All that was measured; differences are to the variant "student", agreement is with "teacher"."""
    student = variants["student"].predicted
    teacher = variants["teacher"].predicted if "teacher" in variants else None
    records = {}
    for name, variant in variants.items():
        exported, int8 = variant.runtime == "ONNX Runtime", variant.quantised
        records[name] = VariantRecord(
            runtime=variant.runtime,
            file=variant.file,
            bytes=variant.bytes,
            scores=task.score(variant.predicted, labels),
            latency=tuple(latencies[name]),
            drop_standard_error=drop_error(task, student, variant.predicted, labels) if exported else None,
            agreement=None if teacher is None else agreement(teacher, variant.predicted, task.kind.link),
            logits=logit_difference(student, variant.predicted) if exported else None,
            load_seconds=footprints[name].load_seconds,
            import_seconds=footprints[name].import_seconds,
            peak_mb=footprints[name].peak_mb,
            method=int8.method if int8 else None,
            weight_bits=int8.bits if int8 else None,
            kept_in_float32=int8.in_float32 if int8 else (),
        )
    return records


def onednn_note(name: str, variant: Variant, examples: Dataset, *, longest: int, threads: int) -> str | None:
    """A sentence where PyTorch with oneDNN's float32 products, which emdistill computes with, is clearly faster here.

    Without it the exported models would look better against PyTorch than they need to.
    """
    if PRODUCTS.fp32_precision != "none" or not onednn_keeps_float32():
        return None
    length = min(longest, max(LENGTHS))
    inputs = full_batch(examples, variant.tokenizer, 1, length)

    with torch_threads(threads):
        calls = {"plain": partial(_run, variant, inputs), "oneDNN": fast_float32()(partial(_run, variant, inputs))}
        times = time_in_turns(calls, rounds=6, seconds=2.0)
    plain, fast = (1000 * statistics.median(times[kind]) for kind in ("plain", "oneDNN"))
    if fast > 0.9 * plain:
        return None
    return (
        f"PyTorch is timed as it comes; with oneDNN's float32 products "
        f"(torch.backends.mkldnn.matmul.fp32_precision = 'bf16', still float32 here) the {name} takes {fast:.1f} "
        f"instead of {plain:.1f} ms at batch 1, length {length}"
    )
