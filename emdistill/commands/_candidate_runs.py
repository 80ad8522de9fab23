"""What becomes of one candidate of a compression: a short training, a whole one, its export and its measurement."""

import hashlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emdistill.commands.distill import distill
from emdistill.commands.export import export, export_subject
from emdistill.config import CacheChoice, student_recipe
from emdistill.console import say
from emdistill.errors import ConfigError, ModelError, TrainingError, TransportError
from emdistill.options import load_config
from emdistill.runs.answers import Logits
from emdistill.runs.compression import TEACHER, CompressionStudy, FinalRow, FormRow
from emdistill.runs.gate_record import GATE, GateRecord
from emdistill.runs.open_run import keep_record_alone
from emdistill.runs.record import RUN_FILE, RunRecord
from emdistill.runs.search_record import FORMS, Form
from emdistill.search.halving import Trial
from emdistill.ship.candidates import Nursery, against
from emdistill.ship.gate import Limits
from emdistill.ship.operator_table import GraphCost
from emdistill.ship.subject import subject_of
from emdistill.show.compress_report import delivery, trial_line
from emdistill.tasks.task import TaskData
from emdistill.training.arguments import LEAN

TRIALS, FINALS = "trials", "finals"
HELD_OUT = "held-out"
WARM_UP_ROWS = 512
PLAIN, LONGEST = r"[A-Za-z0-9.,: -]+", 100  # characters of a candidate whose folder has its name
# A candidate that fails so is left out; what else goes wrong, a full disk, would go wrong with all.
OWN_FAULTS = (ConfigError, ModelError, TrainingError, TransportError)


@dataclass(frozen=True)
class CandidateRuns:
    """Trains and measures candidates; what it learns of them stands in the study's record.

    options          of every training
    data             what trainings learn from, dev, and the rows HELD_OUT that choose
    teacher_logits   [rows, C] on dev and on the rows that choose
    """

    study: CompressionStudy
    nursery: Nursery
    options: Mapping[str, Any]
    data: TaskData
    teacher_logits: Mapping[str, Logits]

    def warm_up(self, name: str, cache: CacheChoice) -> RunRecord | None:
        """The run of a training on few labelled rows, which tells how fast this machine learns; None where it fails."""
        rows = min(WARM_UP_ROWS, len(self.nursery.data.train))
        few = {"rows": rows, "unlabelled": None, "unlabelled_rows": None, "teacher_cache": cache}
        place = self.study.folder / TRIALS / f"{_folder_name(name)}-warm-up"
        shutil.rmtree(place, ignore_errors=True)  # of a search that was stopped: it is timed from its beginning
        with self._own_faults(name):
            return self._distil(name, place, 1.0, lean=True, **few)
        return None

    def whole_epochs(self, student: str) -> float:
        """Of a whole training, where time does not cut it: more where a form of student has a number of its own."""
        given = float(self.nursery.config.training["num_train_epochs"])
        return max(given, float(student_recipe(student).get("training.num_train_epochs", 0)))

    def try_short(self, name: str, rung: int, share: float) -> None:
        """A training of this share of a whole one, scored on the rows that choose; of its run run.json is kept."""
        place = self.study.folder / TRIALS / f"{_folder_name(name)}-{rung}"
        shutil.rmtree(place, ignore_errors=True)  # of a trial that was stopped
        score, problem, started = None, "", time.perf_counter()
        try:
            run = self._distil(name, place, share * self._epochs(name), lean=True)
            score = run.scores["student"][self.study.record.metric]
        except OWN_FAULTS as error:
            problem = str(error).partition("\n")[0]
        seconds = time.perf_counter() - started
        trial = Trial(candidate=name, rung=rung, score=score, seconds=seconds, problem=problem)
        self.study.record.trials.append(trial)
        self.study.save()
        keep_record_alone(place)
        say(trial_line(self.study.record, trial))

    def train_whole(self, name: str) -> None:
        """Learn from all rows, export and measure; what was begun is gone on with, and a failure recorded."""
        place, nursery = self.study.folder / FINALS / _folder_name(name), self.nursery
        say(f"{name}: a whole training")
        with self._own_faults(name):
            run = self._distil(name, place, self._epochs(name), lean=False)
            teacher = nursery.own_vocabulary() if self.study.record.candidates[name].pruned else None
            started = time.perf_counter()
            gate = export(
                str(place), int8=True, threads=nursery.threads, overwrite=True, teacher=teacher,
                max_latency_ms=nursery.budget.ms, max_size_mb=nursery.budget.mb,
            )  # fmt: skip
            taken = time.perf_counter() - started
            seconds, found, of_rows = run.timings["training_seconds"], run.scores["student"], f"{HELD_OUT}/"
            scores = {metric: score for metric, score in found.items() if not metric.startswith(of_rows)}
            held_out = found[of_rows + self.study.record.metric]
            self._add(name, place, gate, scores, seconds=seconds, export_seconds=taken, held_out=held_out)

    def export_teacher(self) -> None:
        """Export and measure the teacher itself; a failure is recorded."""
        nursery, place = self.nursery, self.study.folder / FINALS / "teacher"
        limits, started = Limits(nursery.budget.ms, nursery.budget.mb), time.perf_counter()
        with self._own_faults(TEACHER):
            subject = subject_of(nursery.config.teacher, nursery.data, nursery.config.max_length)
            gate = export_subject(subject, place / GATE.parent, limits, int8=True, threads=nursery.threads)
            taken = time.perf_counter() - started
            self._add(TEACHER, place, gate, self.study.record.teacher, seconds=0.0, export_seconds=taken)

    @contextmanager
    def _own_faults(self, name: str) -> Iterator[None]:
        """Inside, what is a candidate's own fault leaves it out of the search, and no other."""
        try:
            yield
        except OWN_FAULTS as error:
            self.study.record.failed[name] = problem = str(error).partition("\n")[0]
            self.study.save()
            say(f"{name} is left out: {problem}")

    def _epochs(self, name: str) -> float:
        """Of a whole training in this search."""
        record = self.study.record
        assert record.plan is not None
        return self.whole_epochs(record.candidates[name].student) * record.plan.scale

    def _distil(self, name: str, place: Path, epochs: float, *, lean: bool, **changed: Any) -> RunRecord:
        """Distil a candidate into the run `place`, `changed` options on top of all.

        lean   only its score on the rows that choose is of use, and dev is left alone
        """
        record, nursery = self.study.record, self.nursery
        row, plan = record.candidates[name], record.plan
        student = str(nursery.chains[row.student]) if row.searched else row.student
        given = {**self.options, "student": student, "method": row.method, "embedding_rank": row.embedding_rank}
        if plan is not None:
            given |= {"teacher_cache": plan.cache, "unlabelled_rows": plan.unlabelled_rows}
        if row.pruned:
            of = "teacher" if nursery.config.student_source is None else "student_source"
            given[of] = nursery.own_vocabulary()
        training = self.options["training"] | {"num_train_epochs": epochs}
        given |= {**changed, "training": training, "output": str(place), "resume": (place / RUN_FILE).exists()}
        chosen_on = {HELD_OUT: self.data.evaluation[HELD_OUT]}
        data = replace(self.data, evaluation=chosen_on) if lean else self.data
        known = None if row.pruned else {each: self.teacher_logits[each] for each in data.evaluation}
        config = load_config(**given)
        config = replace(config, training=config.training | (LEAN if lean else {}))
        return distill(config, examples=data, teacher_logits=known, quiet=True).run

    def _add(self, name: str, place: Path, gate: GateRecord, scores: Mapping[str, float], **training: float) -> None:
        """Record what was measured of both forms, held against the budget. training: further fields of the row."""
        record, forms = self.study.record, dict[Form, FormRow]()
        for form in FORMS:
            if (variant := gate.variants.get(form)) is not None and (case := variant.limit_case) is not None:
                cost = GraphCost(case.p50, case.p95, variant.bytes)
                forms[form] = against(self.nursery.budget, cost, measured=True, score=variant.scores[gate.metric])
        ship = next((form for form in forms if form == gate.verdict.ship), None)
        folder = str(Path(place.parent.name, place.name))
        final = FinalRow(candidate=name, folder=folder, scores=dict(scores), forms=forms, ship=ship, **training)
        record.finals.append(final)
        self.study.save()
        say(delivery(record, final))


def _folder_name(candidate: str) -> str:
    """'4x312 soft-targets, rank 128' -> '4x312-soft-targets-rank-128'; of a path the end, and what tells it apart."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", candidate)
    if re.fullmatch(PLAIN, candidate) and len(name) <= LONGEST:
        return name
    return f"{name[-LONGEST:]}-{hashlib.sha256(candidate.encode()).hexdigest()[:8]}"
