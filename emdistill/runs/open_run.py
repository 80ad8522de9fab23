"""A run has one owner: it claims the folder, takes a run up again, and marks it finished after everything else stands.

RUN/
├── student/            plain transformers model and tokenizer, with a model card
├── run.json            the record (runs/record.py)
├── predictions.jsonl   what teacher and student answer to every row of dev (runs/answers.py)
├── flows.jsonl         flows and layer weights over the steps (runs/flows.py)
├── baselines.json     what could be taken instead of the student, measured (runs/baseline_record.py)
├── baselines/labels/   the run of the same student on labels alone, where --baselines names it
├── tasks/TASK/         of several tasks each one's predictions.jsonl and baselines.json
├── report.html         scores, sizes, losses, flows and answers on one page; plotly.min.js draws its charts
├── onnx/               the student for ONNX Runtime, once `emdistill export` has made it
├── tensorboard/        the training log
├── checkpoints/        while the run is under way (kept afterwards with --keep-checkpoints)
└── teacher_cache/      likewise: teacher outputs that are read at every epoch, where no other folder is named
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from emdistill.console import say
from emdistill.errors import Interrupted, OutputError, differences, tell
from emdistill.files import MEND, sha256, storage_errors
from emdistill.processes import is_first_process, process_count, wait_for_all
from emdistill.runs.places import LOCK, check_not_read, check_writable, one_owner
from emdistill.runs.record import RUN_FILE, VERSION, RunRecord, read_run, write_run

OWN_FILES = (
    "student", RUN_FILE, "predictions.jsonl", "flows.jsonl", "flows.png", "layer_weights.png", "report.html",
    "plotly.min.js", "onnx", "baselines.json", "baselines", "tasks", "tensorboard", "checkpoints", "teacher_cache",
)  # fmt: skip
WHILE_RUNNING = ("checkpoints", "teacher_cache")
# What a finished run is judged by: these files are known by their checksums.
RESULTS = ("*.safetensors", "student/*.safetensors", "predictions.jsonl", "flows.jsonl", "tasks/*/predictions.jsonl")
# What a run may be resumed with another value of: names of places, of which the contents are compared, by hash,
NAMED = ("teacher", "model", "data", "dev", "unlabelled")
# the same, where it is a file's or folder's and not another name; of some an earlier version kept no hash,
FILES = {"augmented", "mapping", "student", "student_source"}
# and besides what decides nothing about the student.
PLACES = (*NAMED, "output", "keep_checkpoints", "teacher_cache_folder", "baselines")
# How the rows of a step are shared out; it is their number that counts.
SHARES = {"per_device_train_batch_size", "gradient_accumulation_steps"}


class Run:
    """A run folder that this process owns."""

    def __init__(self, folder: Path, *, resumes: bool) -> None:
        self.folder = folder
        self.resumes = resumes
        self._record: RunRecord | None = None

    @property
    def record(self) -> RunRecord:
        """What is known of the run by now."""
        assert self._record is not None, "begin comes first"
        return self._record

    @property
    def has_begun(self) -> bool:
        """Whether the folder holds something of this run, and not of an earlier one, that can be gone on with."""
        return (self.folder / RUN_FILE).exists() and (self.resumes or self._record is not None)

    def is_finished(self, record: RunRecord) -> bool:
        """Whether the run that is resumed has nothing left to do, which is said.

        Raises OutputError where it was started with another configuration, teacher or data.
        """
        if not self.resumes:
            return False
        before = read_run(self.folder)
        check_same_run(self.folder, before, record)
        fault = damaged_file(self.folder, before)
        if before.is_finished and not fault:
            self._tidy(before)
            say(f"{self.folder} is finished already; nothing to do")
            return True
        if fault:
            tell(f"{fault}; the run is gone on with from its last good checkpoint, if any")
        record.timings = dict(before.timings)
        return False

    def begin(self, record: RunRecord, *, keep: Iterable[str] = (), also: Iterable[str] = ()) -> None:
        """Go on under this record; what stood in the folder of an earlier run is removed, where none is resumed.

        Only called once the run has proved that it can take a training step.
        keep, also   names among the run's own files that stay, and further ones that go
        """
        record.version = VERSION
        self._record = record
        if is_first_process():
            for part in self.folder.glob("*.part"):  # of a process that was killed
                part.unlink()
            if not self.resumes:
                clear(self.folder, [name for name in (*OWN_FILES, *also) if name not in keep])
            self.save()
        wait_for_all()

    def save(self) -> None:
        """Write run.json."""
        if is_first_process():
            write_run(self.folder, self.record)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to `timings`, over all sessions of the run, whatever ends it."""
        started, before = time.perf_counter(), self.record.timings.get(name, 0.0)
        try:
            yield
        finally:
            self.record.timings[name] = before + time.perf_counter() - started
            self.save()

    def finish(self) -> None:
        """Mark the run finished; everything else stands by now. What is needed only while it runs is removed."""
        if is_first_process():
            places = [place for name in RESULTS for place in sorted(self.folder.glob(name))]
            self.record.files = {place.relative_to(self.folder).as_posix(): sha256(place) for place in places}
        self.record.status = "finished"
        self.save()
        self._tidy(self.record)

    def _tidy(self, record: RunRecord) -> None:
        if is_first_process() and not record.config.get("keep_checkpoints"):
            remove(self.folder, WHILE_RUNNING)


@contextmanager
def open_run(
    folder: Path, *, overwrite: bool = False, resume: bool = False, reads: Iterable[str | None] = ()
) -> Iterator[Run]:
    """Claim a run folder for this process, and for those that train with it; nothing that stands in it is touched yet.

    reads   what the run reads: a model or file that the run's own files would replace is refused
    A folder that was made for a run which is then refused is removed again.
    Raises OutputError: both flags, a run and no flag, something that is no run, nothing to resume, a place that cannot
    be written, then or later; BusyError: another process is at this run; Interrupted after Ctrl-C or SIGTERM.
    """
    run = Run(folder, resumes=resume)
    if not is_first_process():
        with _interruptible(run):
            yield run
        return
    check_output(folder, overwrite=overwrite, resume=resume, reads=reads)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        with (
            one_owner(folder, "run"),
            _interruptible(run),
            storage_errors(folder, f"{MEND}, then go on with --resume"),
        ):
            yield run
    finally:
        with suppress(OSError):  # the folders hold something by now
            for place in made:
                place.rmdir()


@contextmanager
def _interruptible(run: Run) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped between two steps", begun=run.has_begun) from None


def check_output(folder: Path, *, overwrite: bool, resume: bool, reads: Iterable[str | None] = ()) -> None:
    """Refuse a folder that holds something, unless an option says what to do with it; see `open_run`."""
    if overwrite and resume:
        raise OutputError("--overwrite and --resume exclude each other: replace the run, or go on with it")
    check_writable(folder)
    has_run = (folder / RUN_FILE).exists()
    if resume and not has_run:
        raise OutputError(f"{folder} holds no run to resume; leave out --resume to start one")
    if has_run and not (overwrite or resume):
        raise OutputError(f"{folder} already holds a run; --resume goes on with it, --overwrite replaces it")
    # A cache alone is what is left of a run that was stopped, or refused, before it began; a part, of its first record.
    if not has_run and folder.is_dir() and not all(_is_left_over(item.name) for item in folder.iterdir()):
        raise OutputError(f"{folder} is not empty and holds no run of emdistill; choose another --output")
    check_not_read(folder, OWN_FILES, reads)


def _is_left_over(name: str) -> bool:
    return name in ("teacher_cache", LOCK) or (name.startswith(RUN_FILE) and name.endswith(".part"))


def check_same_run(folder: Path, before: RunRecord, now: RunRecord) -> None:
    """Refuse to resume a run that was started with another configuration, teacher or data.

    An option that the earlier record does not have was added later, and differs in nothing. Not so under `training`,
    whose entries are those that were given: one more is another training. How the rows of a step are shared among
    processes and accumulated gradients may differ, but not their number.
    Raises OutputError that lists the differences.
    """
    then: dict[str, Any] = {}
    later: dict[str, Any] = {}
    are_counted = bool(before.rows_per_step and now.rows_per_step)
    for name, value in json.loads(json.dumps(dict(now.config))).items():
        earlier = before.config.get(name)
        by_hash = name in NAMED or name in FILES & before.hashes.keys() & now.hashes.keys()
        may_differ = bool(earlier) == bool(value) if by_hash else name in PLACES
        if may_differ or name not in before.config:
            continue
        if isinstance(earlier, Mapping) and isinstance(value, Mapping):
            entries = {*earlier, *value} - (SHARES if are_counted else set()) if name == "training" else {*earlier}
            for each, side in ((then, earlier), (later, value)):
                each |= {f"config.{name}.{entry}": side.get(entry) for entry in sorted(entries)}
        else:
            then[f"config.{name}"], later[f"config.{name}"] = earlier, value
    mend = "resume it as it was started, or replace it with --overwrite"
    if are_counted and before.rows_per_step != now.rows_per_step:
        for each, record in ((then, before), (later, now)):
            each |= {f"rows per step of stage {stage}": rows for stage, rows in record.rows_per_step.items()}
        mend = (
            f"choose --training.per_device_train_batch_size for {process_count()} at work, so that a step has as "
            f"many rows as then; {mend}"
        )
    hashes = [name for name in now.hashes if name in before.hashes or name not in FILES]
    then |= {f"hashes.{name}": before.hashes.get(name) for name in hashes}
    later |= {f"hashes.{name}": now.hashes[name] for name in hashes}
    if other := differences(then, later):
        raise OutputError(f"{folder} holds a run of another configuration:\n{other}\n{mend}")


def holds_run(folder: Path, now: RunRecord) -> bool:
    """Whether this run, begun or finished, is what stands in a folder."""
    try:
        check_same_run(folder, read_run(folder), now)
    except OutputError:
        return False
    return True


def damaged_file(folder: Path, record: RunRecord) -> str:
    """The first result of a finished run that is missing, or not as it was written, in words; '' where all are."""
    for name, checksum in record.files.items():
        if not (folder / name).is_file():
            return f"{folder / name} is missing"
        if sha256(folder / name) != checksum:
            return f"{folder / name} was damaged: its checksum differs"
    return ""


def keep_record_alone(folder: Path) -> None:
    """Remove of a run all but its run.json, which names no files then: of a short training whose scores are wanted."""
    if (folder / RUN_FILE).exists():
        write_run(folder, replace(read_run(folder), files={}))
    remove(folder, [name for name in OWN_FILES if name != RUN_FILE])


def clear(folder: Path, names: Iterable[str]) -> None:
    """Remove these of a run but its record, which is not that of a finished one then: half never passes for a whole."""
    with suppress(OutputError):  # there is none, or none that can be read
        write_run(folder, replace(read_run(folder), status="running"))
    remove(folder, [name for name in names if name != RUN_FILE])


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove these files and folders from `folder`, and nothing else."""
    for name in names:
        place = folder / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
