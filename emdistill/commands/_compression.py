"""The search of a compression: baselines, prices, a plan, short trainings by turns, and whole ones of the best."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from emdistill.commands._candidate_runs import FINALS, HELD_OUT, TRIALS, CandidateRuns
from emdistill.commands._delivery import CACHE, MODEL, PAGE, deliver
from emdistill.config import CacheChoice
from emdistill.console import print_table, say
from emdistill.data.batches import tokenise
from emdistill.data.read import hold_out
from emdistill.data.unlabelled import every_nth_text
from emdistill.errors import ConfigError, TrainingError
from emdistill.files import folder_written_whole
from emdistill.models.teacher import Teacher
from emdistill.runs.answers import Logits
from emdistill.runs.baseline_record import FOLDER as BASELINES
from emdistill.runs.baseline_record import TITLES
from emdistill.runs.compression import (
    TEACHER,
    BaselineLine,
    CandidateRow,
    CompressionRecord,
    CompressionStudy,
    PlanRow,
)
from emdistill.runs.record import RunRecord
from emdistill.search.halving import Plan, finalists, make_plan, next_final, next_trial, plan_seconds
from emdistill.ship.baseline_folder import weight_bytes
from emdistill.ship.baselines import Setting, make_baseline
from emdistill.ship.bench import TIMED_TEXTS, time_answers
from emdistill.ship.candidates import OWN_VOCABULARY, WITHOUT_LAYERS, Nursery, measured_ratios, price, still_fits
from emdistill.ship.gate import LENGTHS
from emdistill.ship.measurement import busy_notes, full_texts
from emdistill.show.compress_report import baseline_table, candidates_table, plan_line
from emdistill.show.page import PLOTLY
from emdistill.students import student_kind
from emdistill.tasks.task import TaskData
from emdistill.teachers.text_alone import answered_by
from emdistill.training.evaluate import score_sets
from emdistill.training.splits import HELD_OUT_AT_MOST, HELD_OUT_SEED, HELD_OUT_SHARE

# What goes last tells a search from a folder of something else.
REPLACED = (FINALS, MODEL, CACHE, BASELINES, OWN_VOCABULARY, PAGE, PLOTLY, CompressionRecord.FILE, TRIALS)
EVERY, FEWEST_TEXTS, MOST_TEXTS = 5, 200, 1000  # of the texts without labels: those that choose
BESIDE = ("tfidf", "static")
LEAST_SECONDS = 2e-4  # that a row takes to be learned from, however small the student
EXPORT_SECONDS = 90.0  # of a whole training's export and measurement, until one is known
SPARE = 0.9  # of the time that is left: what is predicted is rough
MOST_FOR_TEACHER = 0.25  # of the time that is left, for the teacher's answers
LEAST_FOR_STUDENTS = 0.25  # of the whole time, however long prices took: what has hardly learned is of no use
LARGEST_CACHE = 4e9  # bytes of states


def search_within(
    study: CompressionStudy,
    nursery: Nursery,
    options: Mapping[str, Any],
    *,
    students: Sequence[str] | None,
    methods: Sequence[str],
    finals: int,
) -> None:
    """All of a search that is not done yet, to what it delivers. options: of every training."""
    record = study.record
    data, record.held_out = _rows_apart(nursery)
    record.held_out_rows = len(data.evaluation[HELD_OUT])
    record.dev_rows = len(next(iter(nursery.data.evaluation.values())))
    logits, record.teacher = _teacher_answers(nursery, data)
    _measure_baselines(study, nursery, data)
    if not record.candidates:
        with busy_notes(nursery.threads) as busy:
            record.candidates = price(nursery, students, methods)
        record.notes += busy
        if not record.candidates:
            raise ConfigError("no student is worth trying with this encoder and task; name some with --students")
        study.save()
    print_table(candidates_table(record))
    if any(row.fits for row in record.candidates.values()):
        Compression(study, nursery, CandidateRuns(study, nursery, options, data, logits)).run(finals)
    deliver(study, nursery.budget)


def _teacher_answers(nursery: Nursery, data: TaskData) -> tuple[Mapping[str, Logits], dict[str, float]]:
    """The teacher's logits [rows, C] on dev and on the rows that choose, and its scores on dev."""
    teacher, dev = nursery.teacher, nursery.data.evaluation
    logits = teacher.logits(data.evaluation, max_length=nursery.config.max_length, description="the teacher's answers")
    assert logits is not None  # it is a model
    scores = dict(score_sets(data.task, {name: logits[name] for name in dev}, dev))
    if nursery.config.check_teacher:
        teacher.check_score(scores, data.task, next(iter(dev.values())))
    return logits, scores


def _measure_baselines(study: CompressionStudy, nursery: Nursery, data: TaskData) -> None:
    """What needs no distillation; its folder is kept, to be delivered where no student keeps the budget."""
    record, task = study.record, data.task
    dev, rows = next(iter(data.evaluation.items()))
    data = replace(data, evaluation={HELD_OUT: data.evaluation[HELD_OUT], dev: rows})
    timed = full_texts(rows, nursery.tokenizer, TIMED_TEXTS, max(LENGTHS))
    for name in BESIDE:
        if name in record.baselines:
            continue
        say(f"learning {TITLES[name]}")
        made = make_baseline(name, Setting(nursery.config, data, nursery.teacher))
        if isinstance(made, str):
            record.baselines[name] = BaselineLine(problem=made)
            continue
        scores = {
            place: task.score(made.logits[0][place], task.gold(examples))[record.metric]
            for place, examples in data.evaluation.items()
        }
        assert made.save is not None  # each of BESIDE has a form
        with folder_written_whole(study.folder / BASELINES / name) as part:
            made.save(part)
            size = weight_bytes(part)
        p95 = time_answers({name: made}, timed)[name].p95
        record.baselines[name] = BaselineLine(held_out=scores[HELD_OUT], score=scores[dev], p95=p95, bytes=size)
    print_table(baseline_table(record))


@dataclass(frozen=True)
class Compression:
    """Who is trained next, by what stands in the study's record."""

    study: CompressionStudy
    nursery: Nursery
    runs: CandidateRuns

    def run(self, finals: int) -> None:
        """The teacher itself, where it will keep the budget; where it does not, its students."""
        record = self.study.record
        if self._teacher_fits and not record.finals and TEACHER not in record.failed:  # it is the first
            self.runs.export_teacher()
        if any(final.ship for final in record.finals if final.candidate == TEACHER):
            return
        if self._trainable:
            self._search(record.plan or self._make_plan(finals))
        if self._problems and not any(final.candidate != TEACHER for final in record.finals):
            raise self._nobody()

    def _search(self, plan: PlanRow) -> None:
        """Short trainings by turns, then whole ones of the best, as long as there is time."""
        study, trials = self.study, self.study.record.trials
        while (chosen := next_trial(plan, trials)) is not None:
            name, rung = chosen
            share = plan.share(name, rung)
            if plan.per_trial + share * self._seconds(name) + self._reserve(plan) > study.seconds_left:
                say("the time that is left is for whole trainings; the short ones end here")
                break
            self.runs.try_short(name, rung, share)
        while (best := self._next_final(plan)) is not None:
            self.runs.train_whole(best)

    def _next_final(self, plan: Plan) -> str | None:
        """Who is trained whole next, of those that still fit: all but the first keep the search's time.

        Those that no short training has scored come last.
        """
        record, fitting = self.study.record, self._trainable
        done = {final.candidate: final.ship is not None for final in record.finals if final.candidate != TEACHER}
        tried = {trial.candidate for trial in record.trials}
        untried = [name for name in sorted(fitting, key=self._turn) if name not in tried]
        order = [name for name in dict.fromkeys([*finalists(plan, record.trials), *untried]) if name in fitting]
        if done:
            left = self.study.seconds_left - self._export_seconds
            order = [name for name in order if self._seconds(name) <= left]
        return next_final(order, done, plan.finals)

    @property
    def _teacher_fits(self) -> bool:
        """Whether the teacher itself, exported, will keep the budget: then nothing has to learn."""
        row = self.study.record.candidates.get(TEACHER)
        return row is not None and row.fits

    @property
    def _trainable(self) -> dict[str, CandidateRow]:
        """Those that can be trained, and will keep the budget by what is known now."""
        record, budget = self.study.record, self.nursery.budget
        ratios, out = measured_ratios(record), {TEACHER, *self._problems}
        rows = record.candidates.items()
        return {name: row for name, row in rows if name not in out and still_fits(row, ratios, budget)}

    def _seconds(self, name: str) -> float:
        """Of a whole training in this search."""
        record = self.study.record
        assert record.plan is not None
        return record.plan.scale * record.candidates[name].seconds

    def _reserve(self, plan: Plan) -> float:
        """Seconds that the best candidate by now needs to be trained whole, exported and measured."""
        best = finalists(plan, self.study.record.trials)
        return self._seconds(best[0]) + self._export_seconds if best else 0.0

    @property
    def _export_seconds(self) -> float:
        """Of an export and its measurement: the longest there was."""
        return max((final.export_seconds for final in self.study.record.finals), default=0.0) or EXPORT_SECONDS

    def _make_plan(self, finals: int) -> PlanRow:
        """Time a short training, and plan the largest search that keeps its time."""
        record, nursery = self.study.record, self.nursery
        labelled, more = len(nursery.data.train), sum(1 for _ in nursery.without_labels())
        cache = _cache(nursery, labelled + more)
        first, run, besides = self._warmed_up(cache)
        fitting, rows = self._trainable, run.rows["train"]
        answered = run.timings.get("teacher_cache_seconds", 0.0) / rows
        left = max(self.study.seconds_left, LEAST_FOR_STUDENTS * 3600 * record.hours)
        most = int(MOST_FOR_TEACHER * left / max(answered, 1e-6))
        texts = min(more, max(most, 1))
        slowness = run.timings["training_seconds"] / rows / fitting[first].predicted["onnx"].p50
        for name, row in fitting.items():
            per_row = max(slowness * row.predicted["onnx"].p50, LEAST_SECONDS)
            seconds = (labelled + texts) * self.runs.whole_epochs(row.student) * per_row
            record.candidates[name] = replace(row, seconds=seconds)
        available = SPARE * (left - answered * (labelled + texts))
        every = {name: record.candidates[name].seconds for name in sorted(fitting, key=self._turn)}
        plan = make_plan(every, available, finals=finals, per_trial=besides, per_final=EXPORT_SECONDS)
        record.plan = PlanRow(**asdict(plan), unlabelled_rows=texts if more else None, cache=cache)
        largest = make_plan(every, math.inf, finals=finals, per_trial=besides, per_final=EXPORT_SECONDS)
        of_all = (labelled + more) / (labelled + texts) * plan_seconds(largest, every, EXPORT_SECONDS)
        needed = 3600 * record.hours - self.study.seconds_left + answered * (labelled + more) + of_all / SPARE
        line = plan_line(record.plan, fitting=len(fitting), texts=more, hours=needed / 3600)
        record.notes.append(line)
        self.study.save()
        say(line)
        return record.plan

    def _warmed_up(self, cache: CacheChoice) -> tuple[str, RunRecord, float]:
        """Whose run tells how fast this machine learns, that run, and its seconds besides learning and the cache."""
        while fitting := self._trainable:
            largest = max(fitting, key=lambda name: fitting[name].predicted["onnx"].p50)  # small ones tell little of it
            started = time.perf_counter()
            if (run := self.runs.warm_up(largest, cache)) is not None:
                learning = run.timings["training_seconds"] + run.timings.get("teacher_cache_seconds", 0.0)
                return largest, run, max(time.perf_counter() - started - learning, 0.0)
        raise self._nobody()

    @property
    def _problems(self) -> dict[str, str]:
        """Why students could not be trained, by name."""
        record = self.study.record
        short = {trial.candidate: trial.problem for trial in record.trials if trial.score is None}
        return short | {name: problem for name, problem in record.failed.items() if name != TEACHER}

    def _nobody(self) -> TrainingError:
        name, problem = [*self._problems.items()][-1]
        return TrainingError(f"no candidate could be trained; the last, {name}: {problem}")

    def _turn(self, name: str) -> tuple[bool, int, float]:
        """Students without layers come first, which take no time; then, method by method, those that use the budget."""
        row = self.study.record.candidates[name]
        methods = list(dict.fromkeys(row.method for row in self._trainable.values()))
        return student_kind(row.student) not in WITHOUT_LAYERS, methods.index(row.method), -row.uses


def _cache(nursery: Nursery, rows: int) -> CacheChoice:
    """The teacher's states are kept where they are few enough."""
    sample, source = nursery.data.train.select(range(min(200, len(nursery.data.train)))), nursery.teacher.source
    assert source is not None  # it is a model
    tokens = np.mean(tokenise(sample, nursery.teacher.tokenizer, nursery.config.max_length)["length"])
    size = 2 * rows * float(tokens) * (source.shape.layers + 1) * source.shape.width
    return "states" if size < LARGEST_CACHE else "logits"


def _rows_apart(nursery: Nursery) -> tuple[TaskData, str]:
    """What all trainings learn from, and beside dev the rows that choose, which none learns from; and what these are.

    A teacher fine-tuned on all of train knows its labels, and gives them on to the layers that students keep: where
    there is text without labels, its answers to some of it choose, for it has learned none of these.
    """
    data, config, teacher = nursery.data, nursery.config, nursery.teacher
    text = teacher.unlabelled(config, data.task)
    if text is not None and isinstance(teacher.source, Teacher):
        texts = list(islice(every_nth_text(text, EVERY, data.evaluation.values()), MOST_TEXTS))
        if len(texts) >= FEWEST_TEXTS:
            answered = answered_by(teacher.source, texts, data.task, config)
            said = f"the teacher's answers to {len(texts):,} texts without labels that no student learned from"
            return replace(data, evaluation={**data.evaluation, HELD_OUT: answered}), said
    learned, scored = hold_out(data.train, data.task, HELD_OUT_SHARE, HELD_OUT_SEED, HELD_OUT_AT_MOST)
    said = (
        f"{len(scored):,} labelled rows that no student learned from; if the teacher did, they flatter the students "
        "that keep most of it"
    )
    return replace(data, train=learned, evaluation={**data.evaluation, HELD_OUT: scored}), said
