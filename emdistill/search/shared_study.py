"""An Optuna study of genes in a folder, shared by processes and kept through kills.

STUDY/
├── journal.jsonl    Optuna's journal: every trial, a line per change (`optuna-dashboard journal.jsonl` shows it)
├── choosing.lock    held while a process chooses its next gene or writes down a result
└── worker-*.lock    held by each process as long as it lives; the trials of one that was killed are free again

Optuna's heartbeat, which tells trials whose process has died, exists only for databases and `optimize`. A lock of the
operating system does the same without waiting: it falls with its process.
"""

import json
import math
import os
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any, Literal, Self
from uuid import uuid4

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from emdistill.errors import OutputError, differences
from emdistill.search.genes import Gene, GeneSpace

Proposer = Literal["heuristic", "genetic", "random"]
State = Literal["finished", "failed", "running", "abandoned"]

JOURNAL, CRC = "journal.jsonl", "crc32"
STUDY_NAME = "layer-mapping"


@dataclass(frozen=True)
class GeneTrial:
    """One evaluation of a gene.

    name      of a heuristic, else ''
    state     abandoned: its process was stopped; the gene may be evaluated anew
    scores    by task; fitness is their mean, NaN where there are none
    reused    the gene had been evaluated for another proposer, whose result this is
    error     why it failed, else ''
    """

    number: int
    gene: Gene
    proposer: Proposer
    state: State
    name: str = ""
    fitness: float = math.nan
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reused: bool = False
    error: str = ""


class CheckedJournal(JournalFileBackend):
    """Optuna's journal, each line with its checksum; OutputError names the first line that was damaged."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs([{**log, CRC: _checksum(log)} for log in logs])

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        number = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                number += 1
                checksum = log.pop(CRC, None)  # None by an earlier version
                if checksum not in (None, _checksum(log)):
                    raise ValueError("its checksum differs")
                yield log
        except ValueError as error:
            raise OutputError(
                f"{self._file_path}:{number}: a line is damaged ({error}); cut the file off above it, and what stood "
                "there is evaluated anew, or start again with --overwrite"
            ) from None


def _checksum(log: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(log).encode()):08x}"


class SharedStudy:
    """A context in which this process takes part in the study of `folder`, made where it is not there.

    settings  what makes fitness comparable, as JSON values; a study of other settings is refused with OutputError
    """

    def __init__(self, folder: Path, space: GeneSpace, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.space = space
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        self._worker = uuid4().hex
        self._alive = FileLock(self._lock_of(self._worker))
        self._choosing = FileLock(folder / "choosing.lock")
        self._distributions: dict[str, BaseDistribution] = {
            f"student layer {layer}": IntDistribution(0, space.teacher_layers) for layer in range(space.student_layers)
        }

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._choosing:
            _drop_half_line(self.folder / JOURNAL)
            self._study = _open_study(self.folder / JOURNAL)
            before = self._study.user_attrs.get("settings")
            if before is None:
                self._study.set_user_attr("settings", self.settings)
            elif other := differences(before, self.settings):
                raise OutputError(
                    f"{self.folder} holds a search of other settings:\n{other}\n"
                    "go on with it as it was started, or choose another --output"
                )
            self._alive.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alive.release()
        self._lock_of(self._worker).unlink(missing_ok=True)

    @contextmanager
    def choosing(self) -> Iterator[list[GeneTrial]]:
        """All trials, while no other process starts or ends one; those of dead processes are abandoned."""
        with self._choosing:
            self._abandon_dead()
            yield [_gene_trial(trial) for trial in self._frozen()]

    def trials(self) -> list[GeneTrial]:
        """All trials in the order in which they were started."""
        with self.choosing() as trials:
            return trials

    def start(self, gene: Gene, proposer: Proposer, name: str = "", *, reused: bool = False) -> Trial:
        """A running trial of this process; to be called while choosing."""
        notes = {"gene": gene, "proposer": proposer, "name": name, "reused": reused, "worker": self._worker}
        # The notes are written with the trial, in one line of the journal: a kill leaves both or neither.
        self._study.enqueue_trial(dict(zip(self._distributions, gene, strict=True)), user_attrs=notes)
        return self._study.ask(self._distributions)

    def finish(self, trial: Trial, scores: Mapping[str, float], seconds: float) -> None:
        """Write down the scores by task; the trial's value is their mean."""
        self._end(trial, fmean(scores.values()), scores=dict(scores), seconds=seconds)

    def fail(self, trial: Trial, error: str, seconds: float) -> None:
        """Write down that this gene has no fitness, and why."""
        self._end(trial, error=error, seconds=seconds)

    def abandon(self, trial: Trial) -> None:
        """Give the gene free again."""
        self._end(trial)

    def _end(self, trial: Trial, value: float | None = None, **notes: Any) -> None:
        with self._choosing:
            for name, note in notes.items():
                trial.set_user_attr(name, note)
            self._study.tell(trial, value, state=TrialState.FAIL if value is None else None)

    def _abandon_dead(self) -> None:
        for _ in self._frozen(TrialState.WAITING):  # killed between its two lines of the journal
            self._study.tell(self._study.ask(), state=TrialState.FAIL)
        for trial in self._frozen(TrialState.RUNNING):
            worker = trial.user_attrs["worker"]
            if worker != self._worker and _is_free(self._lock_of(worker)):
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _frozen(self, *states: TrialState) -> Sequence[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    def _lock_of(self, worker: str) -> Path:
        return self.folder / f"worker-{worker}.lock"


def _gene_trial(trial: FrozenTrial) -> GeneTrial:
    notes = trial.user_attrs
    states: dict[TrialState, State] = {TrialState.COMPLETE: "finished", TrialState.RUNNING: "running"}
    return GeneTrial(
        number=trial.number,
        gene=tuple(notes["gene"]),
        proposer=notes["proposer"],
        state=states.get(trial.state, "failed" if "error" in notes else "abandoned"),
        name=notes["name"],
        fitness=math.nan if trial.value is None else trial.value,
        scores=notes.get("scores", {}),
        seconds=notes.get("seconds", 0.0),
        reused=notes["reused"],
        error=notes.get("error", ""),
    )


def _open_study(journal: Path) -> optuna.Study:
    storage = JournalStorage(CheckedJournal(str(journal), JournalFileOpenLock(str(journal))))
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            storage=storage,
            study_name=STUDY_NAME,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: every gene is given
            load_if_exists=True,
        )
    finally:
        optuna.logging.set_verbosity(before)


def _drop_half_line(journal: Path) -> None:
    """Remove the line that a crash cut short; Optuna would append to it, and read nothing after."""
    if journal.is_file() and (written := journal.read_bytes()) and not written.endswith(b"\n"):
        os.truncate(journal, written.rfind(b"\n") + 1)


def _is_free(lock: Path) -> bool:
    """Whether no living process holds it; then it is removed."""
    if not lock.exists():
        return True
    try:
        with FileLock(lock).acquire(timeout=0):
            pass
    except Timeout:
        return False
    lock.unlink(missing_ok=True)
    return True
