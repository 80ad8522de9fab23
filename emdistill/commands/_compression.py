"""The search of a compression: baselines, prices, short trainings, whole ones, exports, and what is delivered."""

import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from emdistill.commands.distill import distill
from emdistill.commands.export import export, export_subject
from emdistill.config import CacheChoice, student_recipe
from emdistill.console import conclude, print_table, say
from emdistill.data.batches import tokenise
from emdistill.data.read import hold_out
from emdistill.data.unlabelled import every_nth_text
from emdistill.errors import ConfigError, ModelError, TrainingError, TransportError
from emdistill.files import folder_written_whole
from emdistill.models.teacher import Teacher
from emdistill.options import load_config
from emdistill.runs.answers import Logits
from emdistill.runs.baseline_record import FOLDER as BASELINES
from emdistill.runs.baseline_record import TITLES
from emdistill.runs.compression import (
    TEACHER,
    BaselineLine,
    CandidateRow,
    CompressionRecord,
    FinalRow,
    FormRow,
    PlanRow,
    TrialRow,
)
from emdistill.runs.gate_record import GATE, GateRecord, read_gate
from emdistill.runs.open_run import keep_record_alone
from emdistill.runs.record import RUN_FILE, RunRecord
from emdistill.runs.search_record import Form, write_search
from emdistill.runs.student_artifact import StudentArtifact
from emdistill.search.halving import Plan, finalists, make_plan, next_final, next_trial
from emdistill.ship.baseline_folder import weight_bytes
from emdistill.ship.baselines import Setting, make_baseline
from emdistill.ship.bench import TIMED_TEXTS, time_answers
from emdistill.ship.candidates import (
    OWN_VOCABULARY,
    WITHOUT_LAYERS,
    Nursery,
    against,
    measured_ratios,
    nearest_miss,
    price,
    still_fits,
)
from emdistill.ship.classifier import open_classifier
from emdistill.ship.gate import LENGTHS, Limits
from emdistill.ship.measurement import busy_notes, full_texts
from emdistill.ship.operator_table import FORMS, GraphCost
from emdistill.ship.subject import subject_of
from emdistill.show.compress_report import (
    baseline_table,
    behind,
    candidates_table,
    delivery,
    finals_table,
    instead,
    miss,
    plan_line,
    trial_line,
    verdict,
    write_compress_report,
)
from emdistill.show.page import PLOTLY
from emdistill.tasks.task import TaskData
from emdistill.teachers.text_alone import answered_by
from emdistill.training.arguments import LEAN
from emdistill.training.evaluate import score_sets
from emdistill.training.splits import HELD_OUT_AT_MOST, HELD_OUT_SEED, HELD_OUT_SHARE

TRIALS, FINALS, MODEL, CACHE, PAGE = "trials", "finals", "model", "teacher_cache", "report.html"
REPLACED = (TRIALS, FINALS, MODEL, CACHE, BASELINES, OWN_VOCABULARY, CompressionRecord.FILE, PAGE, PLOTLY)
HELD_OUT = "held-out"
EVERY, FEWEST_TEXTS, MOST_TEXTS = 5, 200, 1000  # of the texts without labels: those that choose
BESIDE = ("tfidf", "static")
WARM_UP_ROWS = 512
LEAST_SECONDS = 2e-4  # that a row takes to be learned from, however small the student
EXPORT_SECONDS = 90.0  # of a whole training's export and measurement, until one is known
SPARE = 0.9  # of the time that is left: what is predicted is rough
MOST_FOR_TEACHER = 0.25  # of the time, for the teacher's answers
LARGEST_CACHE = 4e9  # bytes of states
NOT_EXPORTED = "the teacher itself could not be exported"
# A candidate that fails so could not be trained; what else goes wrong, a full disk, would go wrong with all.
OWN_FAULTS = (ConfigError, ModelError, TrainingError, TransportError)


class Compression:
    """A search that this process is at; everything that it knows stands in its record."""

    def __init__(self, nursery: Nursery, options: dict[str, Any], record: CompressionRecord, started: float) -> None:
        self.nursery = nursery
        self.options = options
        self.record = record
        self.folder = nursery.folder
        self._started = started
        self.proxy, record.held_out = _proxy(nursery)
        self._teacher_logits: Mapping[str, Logits] = {}  # on the rows that choose, and on dev
        record.held_out_rows = len(self.proxy.evaluation[HELD_OUT])
        record.dev_rows = len(next(iter(nursery.data.evaluation.values())))

    @property
    def seconds_left(self) -> float:
        """Of the search's time."""
        return 3600 * self.record.hours - self.record.spent - (time.perf_counter() - self._started)

    @property
    def _teacher_fits(self) -> bool:
        """Whether the teacher itself, exported, will keep the budget: then nothing has to learn."""
        row = self.record.candidates.get(TEACHER)
        return row is not None and row.fits

    def save(self) -> None:
        """Write compress.json, the time until now added."""
        now = time.perf_counter()
        self.record.spent += now - self._started
        self._started = now
        write_search(self.folder, self.record)

    def run(self, students: Sequence[str] | None, methods: Sequence[str], finals: int) -> None:
        """All that is not done yet, to the page."""
        record = self.record
        if record.status == "finished":
            say(f"{self.folder} is finished already; nothing to do")
            return
        self._score_teacher()
        self._measure_baselines()
        if not record.candidates:
            with busy_notes(self.nursery.threads) as busy:
                record.candidates = price(self.nursery, students, methods)
            record.notes += busy
            self.save()
        print_table(candidates_table(record))
        if not any(row.fits for row in record.candidates.values()):
            self._deliver_baseline(self._predicted_miss(record.candidates))
            return
        if self._teacher_fits and not record.finals:  # it is the first
            self._export_teacher()
        if not any(final.ship for final in record.finals if final.candidate == TEACHER):
            self._search(finals)
        self._deliver()

    def _score_teacher(self) -> None:
        teacher, data, length = self.nursery.teacher, self.nursery.data, self.nursery.config.max_length
        sets = {**self.proxy.evaluation, **data.evaluation}
        logits = teacher.logits(sets, max_length=length, description="the teacher's answers")
        assert logits is not None  # it is a model
        self._teacher_logits = logits
        scores = score_sets(data.task, {name: logits[name] for name in data.evaluation}, data.evaluation)
        if self.nursery.config.check_teacher:
            teacher.check_score(scores, data.task, next(iter(data.evaluation.values())))
        self.record.teacher = dict(scores)

    def _measure_baselines(self) -> None:
        """What needs no distillation; its folder is kept, to be delivered where no student keeps the budget."""
        data, task, metric = self.proxy, self.proxy.task, self.record.metric
        dev, rows = next(iter(self.nursery.data.evaluation.items()))
        data = replace(data, evaluation={HELD_OUT: data.evaluation[HELD_OUT], dev: rows})
        timed = full_texts(rows, self.nursery.tokenizer, TIMED_TEXTS, max(LENGTHS))
        for name in BESIDE:
            if name in self.record.baselines:
                continue
            say(f"learning {TITLES[name]}")
            made = make_baseline(name, Setting(self.nursery.config, data, self.nursery.teacher))
            if isinstance(made, str):
                self.record.baselines[name] = BaselineLine(problem=made)
                continue
            scores = {
                place: task.score(made.logits[0][place], task.gold(examples))[metric]
                for place, examples in data.evaluation.items()
            }
            assert made.save is not None  # each of BESIDE has a form
            with folder_written_whole(self.folder / BASELINES / name) as part:
                made.save(part)
                size = weight_bytes(part)
            p95 = time_answers({name: made}, timed)[name].p95
            self.record.baselines[name] = BaselineLine(
                held_out=scores[HELD_OUT], score=scores[dev], p95=p95, bytes=size
            )
        print_table(baseline_table(self.record))

    def _search(self, finals: int) -> None:
        """Short trainings by turns, then whole ones of the best, as long as there is time."""
        if not self._trainable:
            return
        plan, trials = self.record.plan or self._make_plan(finals), self.record.trials
        while (chosen := next_trial(plan, trials)) is not None:
            name, rung = chosen
            if plan.shares[rung] * self._seconds(name) + self._reserve(plan) > self.seconds_left:
                say("the time that is left is for whole trainings; the short ones end here")
                break
            self._try(name, rung, plan.shares[rung])
        if not finalists(plan, trials):
            raise TrainingError(
                f"no candidate could be trained; the last, {trials[-1].candidate}: {trials[-1].problem}"
            )
        while (best := self._next_final(plan)) is not None:
            self._train_whole(best)

    def _next_final(self, plan: Plan) -> str | None:
        """Who is trained whole next, of those that still fit: all but the first keep the search's time.

        Those that no short training has scored come last.
        """
        record, fitting = self.record, self._trainable
        done = {final.candidate: final.ship is not None for final in record.finals if final.candidate != TEACHER}
        tried = {trial.candidate for trial in record.trials}
        untried = [name for name in sorted(fitting, key=self._turn) if name not in tried]
        order = [name for name in dict.fromkeys([*finalists(plan, record.trials), *untried]) if name in fitting]
        if done:
            order = [name for name in order if self._seconds(name) + self._export_seconds <= self.seconds_left]
        return next_final(order, done, plan.finals)

    @property
    def _trainable(self) -> dict[str, CandidateRow]:
        """The candidates that will keep the budget by what is known now, but for the teacher."""
        ratios, budget = measured_ratios(self.record), self.nursery.budget
        return {
            name: row for name, row in self.record.candidates.items() if row.method and still_fits(row, ratios, budget)
        }

    def _seconds(self, name: str) -> float:
        """Of a whole training in this search."""
        assert self.record.plan is not None
        return self.record.plan.scale * self.record.candidates[name].seconds

    def _reserve(self, plan: Plan) -> float:
        """Seconds that the best candidate by now needs to be trained whole, exported and measured."""
        best = finalists(plan, self.record.trials)
        return self._seconds(best[0]) + self._export_seconds if best else 0.0

    @property
    def _export_seconds(self) -> float:
        """Of an export and its measurement: the longest there was."""
        return max((final.export_seconds for final in self.record.finals), default=0.0) or EXPORT_SECONDS

    def _make_plan(self, finals: int) -> PlanRow:
        """Time a short training, and plan the largest search that keeps its time."""
        record, nursery = self.record, self.nursery
        fitting = self._trainable
        # Small ones tell little of large ones.
        first = max(fitting, key=lambda name: fitting[name].predicted["onnx"].p50)
        labelled, more = len(nursery.data.train), sum(1 for _ in nursery.without_labels())
        cache = self._cache(labelled + more)
        run = self._distil(
            first, self.folder / TRIALS / "warm-up", self.proxy,
            rows=min(WARM_UP_ROWS, labelled), epochs=1.0, lean=True, unlabelled=None, unlabelled_rows=None,
            teacher_cache=cache,
        )  # fmt: skip
        rows = run.rows["train"]
        per_row = run.timings["training_seconds"] / rows
        answered = run.timings.get("teacher_cache_seconds", 0.0) / rows
        most = int(MOST_FOR_TEACHER * self.seconds_left / max(answered, 1e-6))
        texts = min(more, max(most, 1))
        slowness = per_row / fitting[first].predicted["onnx"].p50
        for name, row in fitting.items():
            seconds = max(slowness * row.predicted["onnx"].p50, LEAST_SECONDS)
            record.candidates[name] = replace(row, seconds=(labelled + texts) * self._whole(row.student) * seconds)
        available = SPARE * (self.seconds_left - answered * (labelled + texts))
        every = {name: record.candidates[name].seconds for name in sorted(fitting, key=self._turn)}
        plan = make_plan(every, available, finals=finals, per_final=EXPORT_SECONDS)
        record.plan = PlanRow(**asdict(plan), unlabelled_rows=texts if more else None, cache=cache)
        self.save()
        say(plan_line(record.plan, fitting=len(fitting), texts=more))
        return record.plan

    def _turn(self, name: str) -> tuple[bool, int, float]:
        """Students without layers come first, which take no time; then, method by method, those that use the budget."""
        row = self.record.candidates[name]
        methods = list(dict.fromkeys(row.method for row in self._trainable.values()))
        return row.student not in WITHOUT_LAYERS, methods.index(row.method), -row.uses

    def _cache(self, rows: int) -> CacheChoice:
        """The teacher's states are kept where they are few enough."""
        sample = self.proxy.train.select(range(min(200, len(self.proxy.train))))
        tokens = np.mean(tokenise(sample, self.nursery.teacher.tokenizer, self.nursery.config.max_length)["length"])
        source = self.nursery.teacher.source
        assert source is not None  # it is a model
        size = 2 * rows * float(tokens) * (source.shape.layers + 1) * source.shape.width
        return "states" if size < LARGEST_CACHE else "logits"

    def _distil(self, name: str, place: Path, data: TaskData, **changed: Any) -> RunRecord:
        """Distil a candidate into the run `place`."""
        row, plan = self.record.candidates[name], self.record.plan
        student = str(self.nursery.chains[row.student]) if row.searched else row.student
        given = {**self.options, "student": student, "method": row.method, "embedding_rank": row.embedding_rank}
        if plan is not None:
            given |= {"teacher_cache": plan.cache, "unlabelled_rows": plan.unlabelled_rows}
        if row.pruned:
            of = "teacher" if self.nursery.config.student_source is None else "student_source"
            given[of] = self.nursery.own_vocabulary()
        training = self.options["training"] | {"num_train_epochs": changed.pop("epochs")}
        lean = LEAN if changed.pop("lean") else {}
        given |= {**changed, "training": training, "output": str(place), "resume": (place / RUN_FILE).exists()}
        known = None if row.pruned else {each: self._teacher_logits[each] for each in data.evaluation}
        config = load_config(**given)
        config = replace(config, training=config.training | lean)
        return distill(config, examples=data, teacher_logits=known, quiet=True).run

    def _whole(self, student: str) -> float:
        """The epochs of a whole training: more where a form of student has a number of its own."""
        given = float(self.nursery.config.training["num_train_epochs"])
        return max(given, float(student_recipe(student).get("training.num_train_epochs", 0)))

    def _epochs(self, name: str, share: float = 1.0) -> float:
        assert self.record.plan is not None
        return self._whole(self.record.candidates[name].student) * self.record.plan.scale * share

    def _try(self, name: str, rung: int, share: float) -> None:
        """A short training, scored on the held-out rows; of its run only run.json is kept."""
        place = self.folder / TRIALS / f"{_folder_name(name)}-{rung}"
        shutil.rmtree(place, ignore_errors=True)  # of a trial that was stopped
        score, problem, started = None, "", time.perf_counter()
        try:
            run = self._distil(name, place, self.proxy, epochs=self._epochs(name, share), lean=True)
            score = run.scores["student"][self.record.metric]
        except OWN_FAULTS as error:
            problem = str(error).partition("\n")[0]
        seconds = time.perf_counter() - started
        self.record.trials.append(TrialRow(candidate=name, rung=rung, score=score, seconds=seconds, problem=problem))
        self.save()
        keep_record_alone(place)
        say(trial_line(self.record, self.record.trials[-1]))

    def _train_whole(self, name: str) -> None:
        """Learn from all rows, export and measure; what was begun is gone on with."""
        place = self.folder / FINALS / _folder_name(name)
        say(f"{name}: a whole training")
        run = self._distil(name, place, self.nursery.data, epochs=self._epochs(name), lean=False)
        teacher = self.nursery.own_vocabulary() if self.record.candidates[name].pruned else None
        budget, threads = self.nursery.budget, self.nursery.threads

        def make(output: Path) -> GateRecord:
            return export(
                str(place), int8=True, output=str(output), threads=threads, overwrite=True,
                max_latency_ms=budget.ms, max_size_mb=budget.mb, teacher=teacher,
            )  # fmt: skip

        held_out = self._held_out_score(StudentArtifact(place).student_folder)
        self._measure(name, place, run.scores["student"], run.timings["training_seconds"], make, held_out)

    def _held_out_score(self, student: Path) -> float:
        """Of a student that was trained whole, on the rows that choose."""
        rows, task, model = self.proxy.evaluation[HELD_OUT], self.proxy.task, open_classifier(str(student))
        logits = model.logits(rows, self.nursery.config.max_length, model.batch_size, "the rows that choose")
        return task.score(logits, task.gold(rows))[self.record.metric]

    def _export_teacher(self) -> None:
        config, data, threads = self.nursery.config, self.nursery.data, self.nursery.threads
        limits = Limits(self.nursery.budget.ms, self.nursery.budget.mb)

        def make(output: Path) -> GateRecord:
            subject = subject_of(config.teacher, data, config.max_length)
            return export_subject(subject, output, limits, int8=True, threads=threads)

        scores = {self.record.metric: self.record.teacher[self.record.metric]}
        try:
            self._measure(TEACHER, self.folder / FINALS / "teacher", scores, 0.0, make)
        except OWN_FAULTS as error:
            self.record.notes.append(f"{NOT_EXPORTED}: {str(error).partition(chr(10))[0]}")

    def _measure(
        self,
        name: str,
        place: Path,
        scores: Mapping[str, float],
        seconds: float,
        make: Callable[[Path], GateRecord],
        held_out: float | None = None,
    ) -> None:
        """Export a model in both forms, and hold what is measured against the budget."""
        budget, started = self.nursery.budget, time.perf_counter()
        gate = read_gate(place) or make(place / GATE.parent)
        forms: dict[Form, FormRow] = {}
        for form in FORMS:
            if (variant := gate.variants.get(form)) is not None and (case := variant.limit_case) is not None:
                cost = GraphCost(case.p50, case.p95, variant.bytes)
                forms[form] = against(budget, cost, measured=True, score=variant.scores[gate.metric])
        final = FinalRow(
            candidate=name, folder=str(Path(place.parent.name, place.name)), scores=dict(scores), forms=forms,
            ship=gate.verdict.ship if gate.verdict.ship in forms else None,
            seconds=seconds, export_seconds=time.perf_counter() - started, held_out=held_out,
        )  # fmt: skip
        self.record.finals.append(final)
        self.save()
        say(delivery(self.record, final))

    def _deliver(self) -> None:
        """Copy the folder of the best that keeps the budget, by the rows that chose; or say what is nearest."""
        record, budget = self.record, self.nursery.budget
        keeping = [final for final in record.finals if final.ship]
        if not record.finals:  # the teacher alone fits, and it could not be had
            others = {name: row for name, row in record.candidates.items() if name != TEACHER}
            self._deliver_baseline(self._predicted_miss(others or record.candidates))
            return
        if not keeping:
            measured = {final.candidate: final.forms for final in record.finals}
            self._deliver_baseline(miss(record, budget, *nearest_miss(measured, budget), measured=True))
            return
        best = keeping[0]  # finalists come in the order of their scores
        baseline, own = self._best_baseline, best.held_out
        theirs = None if baseline is None else record.baselines[baseline].held_out
        # The student may have learned from these rows, the baseline has not: who is ahead by them is so all the more.
        if baseline is not None and own is not None and theirs is not None and theirs > own:
            self._deliver_baseline(behind(record, best, baseline))
            return
        self._copy(self.folder / best.folder / GATE.parent)
        record.delivered = best.candidate
        self._finish(verdict(record, best))

    def _predicted_miss(self, candidates: Mapping[str, CandidateRow]) -> str:
        """What of these is nearest to the budget, before anything is measured; and why the teacher is not delivered."""
        budget = self.nursery.budget
        nearest = nearest_miss({name: row.predicted for name, row in candidates.items()}, budget)
        why = [note for note in self.record.notes if note.startswith(NOT_EXPORTED)]
        return "; ".join([miss(self.record, budget, *nearest, measured=False), *why])

    def _deliver_baseline(self, sentence: str) -> None:
        """Copy the folder of the best baseline that keeps the budget, if there is one, for no student is better."""
        if (name := self._best_baseline) is not None:
            self._copy(self.folder / BASELINES / name)
            self.record.delivered, sentence = name, f"{sentence}; {instead(self.record, name)}"
        self._finish(sentence)

    @property
    def _best_baseline(self) -> str | None:
        """Of the baselines that keep the budget, the best by the rows that choose."""
        keeping = {
            name: row.held_out
            for name, row in self.record.baselines.items()
            if row.held_out is not None
            and (cost := row.cost)
            and self.nursery.budget.keeps(cost)
            and (self.folder / BASELINES / name).is_dir()  # an earlier version made none
        }
        return max(keeping, key=lambda name: keeping[name], default=None)

    def _copy(self, place: Path) -> None:
        """Deliver a folder."""
        with folder_written_whole(self.folder / MODEL) as part:
            shutil.copytree(place, part, dirs_exist_ok=True)

    def _finish(self, sentence: str) -> None:
        self.record.verdict, self.record.status = sentence, "finished"
        shutil.rmtree(self.folder / CACHE, ignore_errors=True)
        self.save()
        write_compress_report(self.folder / PAGE, self.record)
        tables = [finals_table(self.record)] if self.record.finals else []
        conclude(tables, self.record.notes, sentence, f"the page: {self.folder / PAGE}")


def _proxy(nursery: Nursery) -> tuple[TaskData, str]:
    """What short trainings learn from, and the rows that choose among them, which none learns from; and what these are.

    A teacher fine-tuned on all of train knows its labels, and gives them on to the layers that students keep: where
    there is text without labels, its answers to some of it choose, for it has learned none of these.
    """
    data, config, teacher = nursery.data, nursery.config, nursery.teacher
    text = teacher.unlabelled(config, data.task)
    if text is not None and isinstance(teacher.source, Teacher):
        texts = list(islice(every_nth_text(text, EVERY, data.evaluation.values()), MOST_TEXTS))
        if len(texts) >= FEWEST_TEXTS:
            answered = answered_by(teacher.source, texts, data.task, config)
            said = f"the teacher's answers to {len(texts):,} texts without labels that no short training learned from"
            return replace(data, evaluation={HELD_OUT: answered}, held_out=said), said
    learned, scored = hold_out(data.train, data.task, HELD_OUT_SHARE, HELD_OUT_SEED, HELD_OUT_AT_MOST)
    said = (
        f"{len(scored):,} labelled rows that no short training learned from; if the teacher did, they flatter the "
        "students that keep most of it"
    )
    return replace(data, train=learned, evaluation={HELD_OUT: scored}, held_out=said), said


def _folder_name(candidate: str) -> str:
    """'4x312 soft-targets, rank 128' -> '4x312-soft-targets-rank-128'."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", candidate)
