"""A study of genes in a folder, shared by processes and kept through kills.

STUDY/
├── journal.jsonl    the settings, then a line whenever a trial begins or ends: of a trial the last line counts
├── choosing.lock    held while a process chooses its next gene or writes down a result
└── worker-*.lock    held by each process as long as it lives; the trials of one that was killed are free again
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any, Literal, Self
from uuid import uuid4

from filelock import FileLock, Timeout

from emdistill.errors import OutputError, differences
from emdistill.files import append_line, sealed, unsealed
from emdistill.search.genes import Gene
from emdistill.values import parse_json, typed

Proposer = Literal["heuristic", "genetic", "random"]
State = Literal["finished", "failed", "running", "abandoned"]


@dataclass(frozen=True)
class GeneTrial:
    """One evaluation of a gene.

    name      of a heuristic, else ''
    state     abandoned: its process was stopped; the gene may be evaluated anew
    scores    by task
    reused    the gene had been evaluated for another proposer, whose result this is
    error     why it failed, else ''
    """

    number: int
    gene: Gene
    proposer: Proposer
    state: State = "running"
    name: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reused: bool = False
    error: str = ""

    @property
    def fitness(self) -> float:
        """The mean over tasks; NaN where there are no scores."""
        return fmean(self.scores.values()) if self.scores else math.nan


class SharedStudy:
    """A context in which this process takes part in the study of `folder`, made where it is not there.

    settings  what makes fitness comparable, as JSON values; a study of other settings is refused with OutputError
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        self._journal = folder / "journal.jsonl"
        self._worker = uuid4().hex
        self._alive = FileLock(self._lock_of(self._worker))
        self._choosing = FileLock(folder / "choosing.lock")
        # What has been read of the journal: up to which byte, and how many lines.
        self._end = self._lines = 0
        self._before: dict[str, Any] | None = None
        self._trials: dict[int, GeneTrial] = {}
        self._workers: dict[int, str] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._choosing:
            self._journal.touch()
            self._read()
            if self._before is None:
                self._write({"settings": self.settings})
            elif other := differences(self._before, self.settings):
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
            self._read()
            for number, trial in self._trials.items():
                worker = self._workers[number]
                if trial.state == "running" and worker != self._worker and _is_free(self._lock_of(worker)):
                    self.abandon(trial)
            self._read()
            yield list(self._trials.values())

    def trials(self) -> list[GeneTrial]:
        """All trials in the order in which they were started."""
        with self.choosing() as trials:
            return trials

    def start(self, gene: Gene, proposer: Proposer, name: str = "", *, reused: bool = False) -> GeneTrial:
        """A running trial of this process; to be called while choosing."""
        trial = GeneTrial(len(self._trials), gene, proposer, name=name, reused=reused)
        self._note(trial)
        return trial

    def finish(self, trial: GeneTrial, scores: Mapping[str, float], seconds: float) -> None:
        """Write down the scores by task."""
        self._note(replace(trial, state="finished", scores=scores, seconds=seconds))

    def fail(self, trial: GeneTrial, error: str, seconds: float) -> None:
        """Write down that this gene has no fitness, and why."""
        self._note(replace(trial, state="failed", error=error, seconds=seconds))

    def abandon(self, trial: GeneTrial) -> None:
        """Give the gene free again."""
        self._note(replace(trial, state="abandoned"))

    def _note(self, trial: GeneTrial) -> None:
        with self._choosing:
            self._read()
            self._write(asdict(trial) | {"worker": self._worker})

    def _write(self, values: Mapping[str, Any]) -> None:
        append_line(self._journal, sealed(json.dumps(values).encode()))

    def _read(self) -> None:
        """Take in what was written since the last time, with the lock held; raises OutputError for a damaged line."""
        with self._journal.open("rb") as journal:
            journal.seek(self._end)
            for line in journal:
                if not line.endswith(b"\n"):  # a crash has cut it off
                    os.truncate(self._journal, self._end)
                    break
                self._lines += 1
                try:
                    self._take_in(parse_json(unsealed(line)))
                except (ValueError, KeyError, TypeError) as error:
                    raise OutputError(
                        f"{self._journal}:{self._lines}: a line is damaged ({error}); cut the file off above it, and "
                        "what stood there is evaluated anew, or start again with --overwrite"
                    ) from None
                self._end += len(line)

    def _take_in(self, values: Any) -> None:
        if self._before is None:
            if "settings" not in values:
                raise ValueError("it has no settings: an earlier version of emdistill wrote it")
            self._before = dict(values["settings"])
        else:
            trial = typed(values, GeneTrial)
            self._trials[trial.number], self._workers[trial.number] = trial, values["worker"]

    def _lock_of(self, worker: str) -> Path:
        return self.folder / f"worker-{worker}.lock"


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
