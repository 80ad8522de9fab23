"""Models beside each other: their scores, sizes and milliseconds on the same rows and the same machine."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from emdistill.baselines.linear import columns
from emdistill.models.encoder import Classifier
from emdistill.models.size import model_size
from emdistill.runs.answers import PREDICTIONS, Logits, read_predictions
from emdistill.runs.baseline_record import TITLES, BaselineRecord, ModelRow
from emdistill.runs.student_artifact import StudentArtifact
from emdistill.ship.gate import resampled_scores
from emdistill.ship.latency import Latency, forward, summarise, time_in_turns
from emdistill.ship.measurement import busy_notes, machine
from emdistill.tasks.task import Task
from emdistill.training.evaluate import score_sets

Answer = Callable[[str, str | None], object]
"""(text, second text of a pair) -> the logits, from nothing but the text."""

TIMED_TEXTS = 100
ROUNDS, CALLS = 5, 20
SECONDS = 2.0  # of timing, per model at most


@dataclass(frozen=True)
class Contender:
    """A model as it is measured; of a file of answers the logits are all there is.

    logits    by evaluation set, [rows, C], one mapping per seed it was trained with
    seconds   of training, the mean over seeds
    save      writes a folder that answers, where there is a form for it
    """

    logits: Sequence[Mapping[str, Logits]]
    bytes: int | None = None
    answer: Answer | None = None
    seconds: float | None = None
    note: str = ""
    save: Callable[[Path], None] | None = None


@dataclass
class Bench:
    """All that was measured beside a student. problems: why a baseline could not be had, by its name."""

    task: Task
    evaluation: Mapping[str, Dataset]
    teacher: Contender | None
    baselines: dict[str, Contender] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    latencies: dict[str, Latency] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def record(self, student: Contender, name: str = "student") -> BaselineRecord:
        """What baselines.json of this student holds."""
        ours = self._resampled(student)
        rows = {row: self._row(row, other, ours) for row, other in self.baselines.items()}
        rows |= {row: ModelRow(problem=problem) for row, problem in self.problems.items()}
        unanswered = ModelRow(problem="no answers of a teacher to every row that is scored")
        return BaselineRecord(
            metric=self.task.metrics[0],
            dev_rows=len(self._dev),
            machine=machine(torch.get_num_threads()),
            teacher=unanswered if self.teacher is None else self._row("teacher", self.teacher, ours),
            student=self._row("student", student, None),
            baselines={row: rows[row] for row in TITLES if row in rows},
            student_name=name,
            notes=tuple(self.notes),
        )

    @property
    def _dev(self) -> Dataset:
        return next(iter(self.evaluation.values()))

    def _row(self, name: str, model: Contender, ours: "Resampled | None") -> ModelRow:
        scores = [score_sets(self.task, logits, self.evaluation) for logits in model.logits]
        own, latency = self._resampled(model), self.latencies.get(name)
        return ModelRow(
            scores={metric: float(np.mean([score[metric] for score in scores])) for metric in scores[0]},
            standard_error=own.error(),
            lead=None if ours is None else 100 * (ours.score - own.score),
            lead_error=None if ours is None else ours.error(own),
            bytes=model.bytes,
            p50=latency.p50 if latency else None,
            p95=latency.p95 if latency else None,
            seconds=model.seconds,
            note=model.note,
        )

    def _resampled(self, model: Contender) -> "Resampled":
        name, labels = next(iter(self.evaluation)), self.task.gold(self._dev)
        scores = [self.task.score(logits[name], labels)[self.task.metrics[0]] for logits in model.logits]
        samples = [resampled_scores(self.task, logits[name], labels) for logits in model.logits]
        spread = float(np.var(scores, ddof=1)) / len(scores) if len(scores) > 1 else 0.0
        return Resampled(float(np.mean(scores)), np.mean(samples, axis=0), spread)


@dataclass(frozen=True)
class Resampled:
    """A score, the same on samples of the rows [samples], and the variance of its mean over seeds."""

    score: float
    samples: NDArray[np.float64]
    spread: float

    def error(self, other: "Resampled | None" = None) -> float:
        """Standard error, points: √(variance over the rows + over the seeds); of the difference to another, paired."""
        samples = self.samples if other is None else self.samples - other.samples
        return 100 * math.sqrt(float(np.var(samples, ddof=1)) + self.spread + (other.spread if other else 0.0))


def time_all(bench: Bench, student: Contender) -> None:
    """Time a text at a time, all models in turns on the same texts."""
    dev = next(iter(bench.evaluation.values()))
    models = {"teacher": bench.teacher or Contender([]), "student": student, **bench.baselines}
    with busy_notes(torch.get_num_threads()) as busy:
        bench.latencies = time_answers(models, dev)
    bench.notes += busy


def time_answers(models: Mapping[str, Contender], dev: Dataset) -> dict[str, Latency]:
    """Milliseconds from a text to its logits, of the models that can be run: in turns, on the same rows."""
    texts, pairs = columns(dev.select(np.random.default_rng(0).permutation(len(dev))[:TIMED_TEXTS]))

    def call(answer: Answer, number: int) -> object:
        place = number % len(texts)
        return answer(texts[place], pairs[place] if pairs else None)

    calls = {name: partial(call, model.answer) for name, model in models.items() if model.answer}
    times = time_in_turns(calls, rounds=ROUNDS, calls=CALLS, seconds=SECONDS)
    return {name: summarise(seconds, 1) for name, seconds in times.items()}


def torch_contender(
    classifier: Classifier, logits: Sequence[Mapping[str, Logits]], *, max_length: int, seconds: float | None = None
) -> Contender:
    """A model in PyTorch, from text to logits."""
    model: Any = classifier.model
    tokenizer: Any = classifier.tokenizer
    model.eval()

    def answer(text: str, pair: str | None) -> object:
        batch = tokenizer(text, pair, truncation=True, max_length=max_length, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            return forward(model, batch)

    return Contender(logits, model_size(model), answer, seconds)


def run_contender(runs: Sequence[Path], *, max_length: int, seconds: float | None) -> Contender:
    """The students of finished runs of one method, a seed each; the first one is timed."""
    logits = [{name: answers.student for name, answers in read_predictions(run / PREDICTIONS).items()} for run in runs]
    model, tokenizer = StudentArtifact(runs[0]).load()
    student = Classifier(str(runs[0]), model, tokenizer)
    return torch_contender(student, logits, max_length=max_length, seconds=seconds)
