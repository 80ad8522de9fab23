"""Case D: one epoch of SST-2 and of MRPC on real sentence lengths, against the reference approach padded to 128.

    python benchmarks/epoch.py --data ../shared/data/glue [--short] [--batches N] [--threads N] [--output FILE.json]

Teacher: BERT-base's shape with random weights, student 4×312, batch 32, vocabulary of all-MiniLM-L6-v2 (the demo
extra). Ours and TextBrewer take the same batches: those of an epoch of LengthGroupedSampler, padded to their longest.
"Cached teacher" is what second and later epochs cost. What a step is stands in training_steps.py; reading and
tokenising are left out on all sides.

An epoch of the reference takes hours, so epochs are estimated. The epoch's batches are put in the order of their size
and every k-th is timed, once by each contender in turn, which has taken it once untimed just before; total = mean ×
batches. The standard error is that of a systematic sample: Σ (difference of neighbours)² / 2(n − 1) in place of the
variance. The reference's batches all have one shape: four are timed, spread over the run. --rounds has no effect here:
--batches says how much is timed.
"""

import argparse
import math
import random
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from measure import arguments, interleave, print_table, save
from textbrewer_peer import peers
from training_steps import Inputs, ReferenceStep, Step, models, our_steps, peer_steps
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.commands.demo import find_encoder
from emdistill.data.batches import LengthGroupedSampler, PaddingCollator, lengths_of, share_of_padding, tokenise
from emdistill.data.read import read_task_data
from emdistill.errors import EmdistillError
from emdistill.models.encoder import load_tokenizer
from emdistill.models.teacher import Teacher
from emdistill.models.teacher_cache import open_teacher_cache

TASKS = ("sst2", "mrpc")
BATCH_SIZE, MAX_LENGTH = 32, 128
REFERENCE_TIMINGS = 4
STATES = ("hidden", "attention", "embeddings")

Seconds = dict[str, list[float]]


def sample_batches(lengths: Sequence[int], batches: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """Every k-th batch in the order of their size in positions, so that the sample holds its share of every size."""
    by_size = sorted(batches, key=lambda batch: len(batch) * max(lengths[index] for index in batch))
    count = min(count, len(by_size))
    return [list(by_size[int((place + 0.5) * len(by_size) / count)]) for place in range(count)]


def encode(
    examples: Dataset, sampled: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, **padding: Any
) -> list[Inputs]:
    """Each sampled batch as tensors, `row` counting through all of them."""
    batches, row = [], 0
    for indices in sampled:
        batch = tokenizer.pad([examples[index] for index in indices], return_tensors="pt", **padding)
        batches.append({**batch, "row": torch.arange(row, row + len(indices))})
        row += len(indices)
    return batches


def time_batches(steps: Mapping[str, Step], batches: Sequence[Inputs]) -> Seconds:
    """Seconds of every contender on every batch; batch by batch, in an order drawn anew."""

    def walk(step: Step, remaining: Any) -> None:
        step(next(remaining))

    twice = [batch for batch in batches for _ in range(2)]  # the first time untimed
    walks = {name: partial(walk, step, iter(twice)) for name, step in steps.items()}
    return interleave(walks, len(batches), warmup=0, settle=True)


def time_all(steps: Mapping[str, Step], reference: Step, batches: Sequence[Inputs], padded: Inputs) -> Seconds:
    """Time the batches of a shuffled order, so that drift is not mistaken for size; returned in the order given."""
    order = random.Random(0).sample(range(len(batches)), len(batches))
    for step in steps.values():  # what is compiled is compiled before
        step(batches[order[0]])
    timings = min(REFERENCE_TIMINGS, len(batches))
    bounds = [round(part * len(batches) / timings) for part in range(timings + 1)]
    seconds: Seconds = {name: [0.0] * len(batches) for name in steps}
    reference_seconds = []
    for start, end in pairwise(bounds):
        reference_seconds += interleave({"reference": lambda: reference(padded)}, 1, warmup=0, settle=True)["reference"]
        part = time_batches(steps, [batches[place] for place in order[start:end]])
        for name, values in part.items():
            for place, value in zip(order[start:end], values, strict=True):
                seconds[name][place] = value
    return {"reference approach": reference_seconds, **seconds}


def estimate(values: Sequence[float], batches: int) -> dict[str, float]:
    """Seconds of the whole epoch and their standard error."""
    count = len(values)
    squares = sum((after - before) ** 2 for before, after in pairwise(values))
    variance = squares / (2 * (count - 1)) if count > 1 else math.nan
    error = batches * math.sqrt(max(0.0, 1 - count / batches) * variance / count)
    return {"seconds": batches * statistics.mean(values), "standard_error": error, "timed": count}


def measure_epoch(
    task: str, options: argparse.Namespace, teacher: PreTrainedModel, student: PreTrainedModel, folder: Path
) -> dict[str, Any]:
    """One task: what its epoch holds, and what it costs each contender."""
    tokenizer = load_tokenizer(find_encoder())
    examples = tokenise(read_task_data(options.data, task=task).train, tokenizer, MAX_LENGTH)
    lengths = lengths_of(examples)
    examples = examples.remove_columns(["length", "labels"])
    batches = list(LengthGroupedSampler(lengths, BATCH_SIZE, seed=0).batches())
    sampled = sample_batches(lengths, batches, options.batches)
    inputs = encode(examples, sampled, tokenizer)
    padded = encode(examples, sampled[:1], tokenizer, padding="max_length", max_length=MAX_LENGTH)[0]
    cached = examples.select([index for batch in sampled for index in batch])
    cache = open_teacher_cache(Teacher(teacher), cached, folder, needs=STATES, collate=PaddingCollator(tokenizer))
    steps = {**our_steps(teacher, student, cache), **peer_steps(teacher, student)}
    seconds = time_all(steps, ReferenceStep(teacher, student), inputs, padded)
    tokens = int(lengths.sum())
    facts = {
        "examples": len(lengths),
        "batches": len(batches),
        "tokens": tokens,
        "share_of_padding": share_of_padding(lengths, batches),
        "share_of_padding_to_128": 1 - tokens / (len(lengths) * MAX_LENGTH),
    }
    return {**facts, **show_epoch(task, facts, {name: estimate(took, len(batches)) for name, took in seconds.items()})}


def show_epoch(task: str, facts: Mapping[str, float], epochs: Mapping[str, dict[str, float]]) -> dict[str, Any]:
    """Print and return the epochs and how many times faster they are."""
    baselines = {name: "reference approach" for name in epochs if name.startswith("ours")}
    baselines |= peers(epochs)
    faster = {name: epochs[than]["seconds"] / epochs[name]["seconds"] for name, than in baselines.items()}
    rows = []
    for name, epoch in epochs.items():
        times = f"{epoch['seconds']:,.0f} ± {epoch['standard_error']:,.0f}"
        rate = f"{facts['tokens'] / epoch['seconds']:,.0f}"
        rows.append((name, times, rate, f"{faster[name]:.2f} × {baselines[name]}" if name in faster else ""))
    title = (
        f"An epoch of {task}: {facts['batches']:,} batches, {facts['tokens']:,} tokens; padding "
        f"{facts['share_of_padding']:.1%} in length-grouped batches, {facts['share_of_padding_to_128']:.1%} to 128"
    )
    print_table(title, ["", "s, estimated", "tokens/s", "faster than"], rows)
    ratios = {name: {"than": baselines[name], "times": times} for name, times in faster.items()}
    return {"epochs": dict(epochs), "faster": ratios}


def main() -> None:
    """Run case D."""
    data = {"required": True, "metavar": "GLUE_DIR", "help": "the folder that holds SST-2 and MRPC"}
    batches = {"type": int, "metavar": "N", "help": "batches timed of each task (default: 24; 6 with --short)"}
    parser = arguments(__doc__, data=data, batches=batches)
    options = parser.parse_args()
    if not Path(options.data).is_dir():
        parser.error(f"there is no folder {options.data}: --data takes the folder that holds SST-2 and MRPC")
    options.batches = options.batches or (6 if options.short else 24)
    torch.set_num_threads(options.threads)
    teacher, student = models(options.short)
    try:
        with tempfile.TemporaryDirectory() as folder:
            tasks = {task: measure_epoch(task, options, teacher, student, Path(folder)) for task in TASKS}
    except EmdistillError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    save(options.output, {"tasks": tasks})


if __name__ == "__main__":
    main()
