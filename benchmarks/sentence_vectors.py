"""What a BiLSTM gains by learning sentence vectors on raw text first, with labels alone and under a teacher.

    python benchmarks/sentence_vectors.py --encoder minilm/ --teachers runs --text ../shared/data/corpus/wiki.txt.xz \
        --glue ../shared/data/glue

On raw text an approximated BiLSTM learns an encoder's sentence vectors, once per seed and for all tasks. Then per task
and seed the same BiLSTM, fresh or approximated, learns from labels or from a fine-tuned teacher's answers, alike but
for these. The last checkpoint is kept, so that nothing is chosen on the scored set. What is finished is not done again.
The table is written to OUTPUT/sentence_vectors.md, its numbers to sentence_vectors.json.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from jsonargparse import auto_cli

from emdistill import distill
from emdistill.data.paragraphs import read_corpus
from emdistill.data.read import read_data
from emdistill.models import load_classifier, load_tokenizer
from emdistill.options import load_config
from emdistill.runs.comparison import paired_difference
from emdistill.runs.record import RUN_FILE, RunRecord, read_run
from emdistill.ship.latency import forward, time_in_turns

FRESH, APPROXIMATED = "fresh", "approximated"
METHODS = {"labels": "hard-labels", "teacher": "soft-targets"}  # what is learned from -> the method
PLACES = {"mrpc": "MRPC", "stsb": "STS-B", "sst2": "SST-2"}  # task -> its folder below --glue
TIMED = 100  # rows, one at a time
WORDS = range(6, 41)  # of a sentence


@dataclass(frozen=True)
class Settings:
    """How the students learn: `general` on raw text, `training` on a task."""

    student: str = "bilstm"
    sentences: int = 50_000
    general: dict[str, Any] = field(default_factory=lambda: {"num_train_epochs": 3})
    training: dict[str, Any] = field(default_factory=lambda: {"num_train_epochs": 10, "learning_rate": 1e-3})


@dataclass(frozen=True)
class Row:
    """An arm of a task: scores by seed, milliseconds per row."""

    task: str
    birth: str
    learns: str
    metric: str
    scores: tuple[float, ...]
    milliseconds: float


def main(
    encoder: str,
    teachers: str,
    text: str,
    glue: str,
    output: str = "runs/sentence-vectors",
    tasks: str = "mrpc,stsb,sst2",
    learns: str = ",".join(METHODS),
    rows: int = 2000,
    seeds: int = 5,
    settings: Settings = Settings(),
) -> None:
    """Run what is missing, and write the table.

    Args:
        encoder: folder or hub id of the encoder whose sentence vectors are learned.
        teachers: folder of a fine-tuned teacher per task: mrpc, stsb, sst2.
        text: raw text.
        glue: folder of the GLUE tasks' folders.
        output: folder of all runs.
        tasks: some of mrpc, stsb, sst2.
        learns: labels, teacher.
        rows: of each training set, drawn once.
        seeds: so many, from 0.
        settings: of the students.
    """
    folder = Path(output)
    sentences = write_sentences(Path(text), folder / "sentences.txt", settings.sentences)
    general = []
    for seed in range(seeds):
        options = {"task": "text", "teacher": encoder, "data": str(sentences), "method": "sentence-vectors"}
        options |= {"student": settings.student, "max_length": 64, "training": quiet(settings.general)}
        general.append(finished(folder / f"general-{seed}", seed, options))
    common: dict[str, dict[str, Any]] = {}
    for task in tasks.split(","):
        common[task] = {"task": task, "data": f"{glue}/{PLACES[task]}", "rows": rows, "select": "last"}
        common[task] |= {"baselines": "none", "training": quiet(settings.training)}
        common[task] |= {"teacher_cache_folder": f"{folder}/cache"}
    for what in learns.split(","):
        for task, data in common.items():
            for seed in range(seeds):
                for birth, student in births(folder, seed, settings).items():
                    own = {"student": student, "method": METHODS[what], "teacher": f"{teachers}/{task}"}
                    if what == "labels":
                        own |= {"teacher": "none"} | ({"student_source": encoder} if birth == FRESH else {})
                    finished(folder / f"{task}-{birth}-{what}-{seed}", seed, data | own)
    found = [
        row
        for task, data in common.items()
        for row in measure(folder, task, learns.split(","), seeds, data | {"teacher": f"{teachers}/{task}"})
    ]
    table = lines(found, general)
    (folder / "sentence_vectors.json").write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")
    (folder / "sentence_vectors.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    print(*table, sep="\n")


def births(folder: Path, seed: int, settings: Settings) -> dict[str, str]:
    """Birth -> `--student`."""
    return {FRESH: settings.student, APPROXIMATED: str(folder / f"general-{seed}" / "student")}


def quiet(training: dict[str, Any]) -> dict[str, Any]:
    """These settings, without bars."""
    return {"disable_tqdm": True, "gradient_norm_steps": 0, **training}


def write_sentences(text: Path, file: Path, count: int) -> Path:
    """A file of so many sentences, drawn from ten times as many at the text's beginning, each a document of its own."""
    if not file.exists():
        drawn = list(islice(sentences_of(text), 10 * count))
        random.Random(0).shuffle(drawn)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n\n".join(drawn[:count]) + "\n", encoding="utf-8")
    return file


def sentences_of(text: Path) -> Iterator[str]:
    """Its sentences of a usual length, cut roughly: behind a full stop, before a capital."""
    for paragraph in read_corpus(text):
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph.text):
            if len(sentence.split()) in WORDS:
                yield sentence


def finished(run: Path, seed: int, options: dict[str, Any]) -> RunRecord:
    """The record of a run, which is done where it is not."""
    begun = (run / RUN_FILE).exists()
    if not begun or not read_run(run).is_finished:
        distill(load_config(**options, output=str(run), seed=seed, resume=begun), quiet=True)
    record = read_run(run)
    print(run, record.scores or record.held_out_loss, flush=True)
    return record


def measure(folder: Path, task: str, learns: Sequence[str], seeds: int, data: dict[str, Any]) -> list[Row]:
    """A task's arms, and the teacher; models of the first seed are timed in turns."""
    arms = [(birth, what) for birth in (FRESH, APPROXIMATED) for what in learns]
    records = {arm: [read_run(folder / f"{task}-{arm[0]}-{arm[1]}-{seed}") for seed in range(seeds)] for arm in arms}
    student = folder / f"{task}-{FRESH}-{learns[0]}-0" / "student"
    models = {"student": load_classifier(student), "teacher": load_classifier(data["teacher"])}
    examples = next(iter(read_data(load_config(output="", **data)).evaluation.values())).select(range(TIMED))
    texts = [examples[name] for name in ("text", "text_pair") if name in examples.column_names]
    encode = load_tokenizer(student)
    inputs = [encode(*row, truncation=True, max_length=128, return_tensors="pt") for row in zip(*texts, strict=True)]

    def call(name: str) -> Any:
        return lambda number: forward(models[name], inputs[number % len(inputs)])

    with torch.inference_mode():
        times = {name: 1e3 * median(own) for name, own in time_in_turns({name: call(name) for name in models}).items()}
    first = records[arms[0]][0].task
    assert first is not None
    rows = [
        Row(task, *arm, first.metric, tuple(run.scores["student"][first.metric] for run in own), times["student"])
        for arm, own in records.items()
    ]
    teachers = {
        run.scores["teacher"][first.metric] for own in records.values() for run in own if "teacher" in run.scores
    }
    return [*rows, Row(task, "teacher", "", first.metric, tuple(teachers), times["teacher"])]


def lines(rows: Sequence[Row], general: Sequence[RunRecord]) -> list[str]:
    """Markdown: the vectors on held-out text, then a line per arm, with its paired difference to a fresh birth's."""
    found = []
    for record in general:
        before, after = record.held_out_loss["before"], record.held_out_loss["after"]
        found.append(f"held-out text: {', '.join(f'{name} {before[name]:.3f} -> {after[name]:.3f}' for name in after)}")
    found += ["", "| task | birth | learns from | metric | score by seed | mean | over fresh | ms per row |"]
    found.append(f"|{' --- |' * 4}{' ---: |' * 4}")
    of_fresh = {(row.task, row.learns): row.scores for row in rows if row.birth == FRESH}
    for row in rows:
        scores = ", ".join(f"{score:.3f}" for score in row.scores)
        gain = f"{100 * paired_difference(row.scores, of_fresh[row.task, row.learns]).mean:+.1f}" if row.learns else ""
        mean = f"{fmean(row.scores):.3f}" if row.scores else ""
        cells = (row.task, row.birth, row.learns, row.metric, scores, mean, gain)
        found.append(f"| {' | '.join(cells)} | {row.milliseconds:.1f} |")
    return found


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
