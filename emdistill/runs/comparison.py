"""A comparison over seeds, read from finished run folders: scores, paired differences to a baseline, and findings.

COMPARISON/
├── runs/ENTRY-SEED/    a run folder per entry and seed
├── teacher_cache/      teacher outputs, shared by all runs
├── comparison.json     every score, the differences, the findings
├── comparison.md       the table
├── report.html         findings, scores, sizes, and the differences as dots and intervals
└── plotly.min.js       draws the charts of this page and of the runs' pages
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

import numpy as np
from scipy.stats import ttest_rel

from emdistill.errors import DataError, OutputError
from emdistill.runs.distillation import Distillation, as_distillation, versions_of
from emdistill.runs.record import RUN_FILE, read_run

RUNS = "runs"
SIGNIFICANCE = 0.05
CONFIDENCE = 0.95
EQUAL = 1e-12  # scores that differ by rounding only are equal

Finding = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True)
class PairedDifference:
    """How much higher an entry scores than the baseline, over the seeds that both have.

    mean       of the differences
    low, high  95 % interval of that mean; None where there is none to give
    wins, ties, losses  seeds on which the entry scores higher, the same, lower
    p          two-sided, of the hypothesis that there is no difference; None for one seed
    """

    mean: float
    low: float | None
    high: float | None
    wins: int
    ties: int
    losses: int
    p: float | None

    @property
    def finding(self) -> Finding:
        """'better' or 'worse' where p is below 5 %, that is, where the 95 % interval leaves out 0."""
        if self.p is None or self.p >= SIGNIFICANCE:
            return "no difference shown"
        return "better" if self.mean > 0 else "worse"


@dataclass(frozen=True)
class EntryResult:
    """One entry over its finished seeds.

    scores       seed -> metric -> score on dev
    seconds      seed -> seconds of training
    differences  seed -> its score minus the baseline's with that seed; empty for the baseline itself
    difference   their mean, its interval and its p
    p_holm       p adjusted for the number of comparisons made (Holm, 1979)
    parameters, size  of the student; size in bytes
    """

    name: str
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    differences: dict[int, float] = field(default_factory=dict)
    difference: PairedDifference | None = None
    p_holm: float | None = None
    parameters: int | None = None
    size: int | None = None

    def mean(self, metric: str) -> float:
        """The mean score over the finished seeds."""
        return fmean(scores[metric] for scores in self.scores.values())

    def deviation(self, metric: str) -> float | None:
        """The standard deviation of the score over seeds (n - 1); None for one seed."""
        return stdev(scores[metric] for scores in self.scores.values()) if len(self.scores) > 1 else None

    @property
    def mean_seconds(self) -> float:
        """Seconds of training, the mean over the finished seeds."""
        return fmean(self.seconds.values())

    @property
    def finding(self) -> Finding | None:
        """What the paired differences show; None where there is none, as for the baseline."""
        return self.difference.finding if self.difference else None

    @property
    def survives(self) -> bool:
        """Whether the finding stands after Holm's correction."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE


@dataclass(frozen=True)
class Comparison:
    """Entries over seeds; `metric`, the task's first one, decides.

    dev        the evaluation set's name, and dev_rows its size
    selection  how the checkpoints were chosen, in a sentence (several where the runs differ in it)
    versions   package -> the versions that the runs were made with
    learned_from   how many rows, with labels and without, in words; empty where all had labels
    tasks      the metric of each task, `task/metric`, where a student learns several; `metric` is their mean
    """

    task: str
    metric: str
    dev: str
    dev_rows: int
    seeds: tuple[int, ...]
    baseline: str
    teacher: dict[str, float]
    entries: tuple[EntryResult, ...]
    selection: tuple[str, ...] = ()
    versions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    learned_from: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def by(self, metric: str) -> "Comparison":
        """The same entries and seeds by another metric."""
        entries = compare_entries(self.entries, self.baseline, metric)
        return replace(self, metric=metric, entries=entries, tasks=())

    @property
    def missing(self) -> int:
        """How many runs are not finished."""
        return sum(len(self.seeds) - len(entry.scores) for entry in self.entries)

    @property
    def compared(self) -> list[tuple[EntryResult, PairedDifference]]:
        """The entries that have seeds in common with the baseline, and their differences to it."""
        return [(entry, entry.difference) for entry in self.entries if entry.difference is not None]


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> PairedDifference:
    """The mean d̄ of the paired differences d = values - baseline, and d̄ ± t(n - 1) · s(d) / √n (Student, 1908).

    values, baseline   scores of the same n seeds, in the same order
    One seed has neither interval nor p. Where all differences are equal, as the coarse scores of a small development
    set can be, s = 0 says nothing of the spread: there is no interval then, and p is the sign test's, 2^(1 - n), or 1
    where all are ties.
    Raises DataError where their numbers differ, or are 0.
    """
    if len(values) != len(baseline) or not values:
        raise DataError(f"{len(values)} scores cannot be paired with {len(baseline)} of the baseline")
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    count, mean = len(differences), fmean(differences)
    wins = sum(difference > EQUAL for difference in differences)
    losses = sum(difference < -EQUAL for difference in differences)
    low = high = p = None
    if count > 1 and max(differences) - min(differences) <= EQUAL:
        p = 2.0 ** (1 - count) if wins or losses else 1.0
    elif count > 1:
        test = ttest_rel(values, baseline)
        low, high = map(float, test.confidence_interval(CONFIDENCE))
        p = float(test.pvalue)
    return PairedDifference(mean, low, high, wins, count - wins - losses, losses, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: max over the k-th smallest ≤ p of min(1, (m - k + 1) · p_k) (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    raised = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.minimum(raised, 1.0))
    return list(map(float, adjusted))


def run_place(folder: Path, entry: str, seed: int) -> Path:
    """The run folder of an entry and a seed."""
    return folder / RUNS / f"{entry}-{seed}"


def read_comparison(
    folder: Path, entries: Sequence[str], seeds: Sequence[int], baseline: str | None = None
) -> Comparison | None:
    """The comparison over the runs that are finished by now; None where none is. OutputError for a broken record.

    baseline   an entry's name; the first one if not given
    """
    baseline = entries[0] if baseline is None else baseline
    runs = {
        entry: {seed: run for seed in seeds if (run := _finished(run_place(folder, entry, seed))) is not None}
        for entry in entries
    }
    finished = [run for of_entry in runs.values() for run in of_entry.values()]
    if not finished:
        return None
    first, task, (dev, rows) = finished[0], finished[0].scored_task, finished[0].dev
    for run in finished:
        if task.metric not in run.student_scores:
            raise OutputError(
                f"{run.folder / RUN_FILE} has no scores.student.{task.metric}, by which {first.folder} is scored"
            )
    return Comparison(
        task=task.name,
        metric=task.metric,
        dev=dev,
        dev_rows=rows,
        seeds=tuple(seeds),
        baseline=baseline,
        teacher=first.teacher_scores,
        entries=compare_entries([_entry(name, runs[name]) for name in entries], baseline, task.metric),
        selection=tuple(dict.fromkeys(run.record.selection for run in finished)),
        versions=versions_of(finished),
        learned_from=tuple(dict.fromkeys(run.record.learned_from for run in finished if run.record.unlabelled)),
        tasks=tuple(f"{name}/{of_task.metric}" for name, of_task in first.record.tasks.items()),
    )


def compare_entries(entries: Sequence[EntryResult], baseline: str, metric: str) -> tuple[EntryResult, ...]:
    """The entries with their differences to the baseline, over the seeds that both have, and Holm's p-values."""
    against = next(entry.scores for entry in entries if entry.name == baseline)
    results = []
    for entry in entries:
        seeds = [seed for seed in entry.scores if seed in against and entry.name != baseline]
        values = [entry.scores[seed][metric] for seed in seeds]
        others = [against[seed][metric] for seed in seeds]
        differences = {seed: value - other for seed, value, other in zip(seeds, values, others, strict=True)}
        difference = paired_difference(values, others) if seeds else None
        results.append(replace(entry, differences=differences, difference=difference))
    p_values = {each.name: each.difference.p for each in results if each.difference and each.difference.p is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return tuple(replace(result, p_holm=adjusted.get(result.name)) for result in results)


def _finished(folder: Path) -> Distillation | None:
    if not (folder / RUN_FILE).exists():
        return None
    run = read_run(folder)
    return as_distillation(folder, run) if run.is_finished else None


def _entry(name: str, runs: Mapping[int, Distillation]) -> EntryResult:
    student = next((run.student for run in runs.values()), None)
    return EntryResult(
        name,
        scores={seed: run.student_scores for seed, run in runs.items()},
        seconds={seed: run.training_seconds for seed, run in runs.items() if run.training_seconds is not None},
        parameters=student.parameters if student else None,
        size=student.bytes if student else None,
    )
