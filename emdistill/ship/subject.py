"""What is exported: a run's student, or any classifier, with the data it is scored on and the teacher it had."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from emdistill.data.labels import as_the_model_counts
from emdistill.data.mixture_file import read_mixture
from emdistill.errors import ConfigError, DataError, EmdistillError, ModelError, TeacherError
from emdistill.models.encoder import Classifier, load_classifier, load_tasks, load_tokenizer
from emdistill.models.inputs import longest_text
from emdistill.models.multi_task import MultiTaskModel
from emdistill.models.teacher import Teacher
from emdistill.runs.reading import Reading, recall_reading, remember_reading
from emdistill.runs.record import RUN_FILE, DataOptions, ModelRecord, RunRecord, TaskRecord, check_record, read_run
from emdistill.tasks.task import RAW_TEXT, TaskData
from emdistill.training.splits import check_max_length


@dataclass(frozen=True)
class Subject:
    """A student, its teacher where one is known, and the data both are scored on."""

    student: Classifier
    teacher: Classifier | None
    data: TaskData
    max_length: int

    @property
    def longest(self) -> int:
        """How many tokens all of its models have positions for."""
        models = [self.student.model, *([self.teacher.model] if self.teacher else [])]
        return min(map(longest_text, models))


@dataclass(frozen=True)
class SeveralTasks:
    """A student of several tasks, the record of its run, and the data of each task."""

    student: Classifier
    record: RunRecord
    data: dict[str, TaskData]

    def model(self, task: str) -> PreTrainedModel:
        """The student with the head of one task."""
        assert isinstance(self.student.model, MultiTaskModel)
        return self.student.model.of(task)

    def max_length(self, task: str) -> int:
        """Tokens of a text of one task."""
        model = self.model(task)
        return min(recall_reading(model).max_length, longest_text(model))


def several_tasks(run: str) -> RunRecord | None:
    """The record of a run whose student has learned several tasks; None for anything else."""
    folder = Path(run)
    record = read_run(folder) if (folder / RUN_FILE).is_file() else None
    return record if record is not None and record.tasks else None


def read_several(run: str, record: RunRecord, data: str | None) -> SeveralTasks:
    """The student of a run of several tasks, and the data of each, labels counted as its head counts them.

    data   the file of the tasks, if it has moved
    Raises ConfigError for a run that has not finished, or a file without one of its tasks; ModelError, DataError.
    """
    if not record.is_finished:
        raise ConfigError(f"{run} is a run that has not finished; finish it first, with --resume")
    source = str(Path(run) / "student")
    model, file, sets = load_tasks(source), Path(data or record.config["data"]), {}
    entries = {entry.name: entry for entry in read_mixture(file).tasks}
    if absent := model.outputs.keys() - entries.keys():
        raise ConfigError(f"{file} names no task {min(absent)}, which {source} answers; name its file with --data")
    for task in model.outputs:
        entry, one = entries[task], Teacher(model.of(task))
        examples = recall_reading(one.model).read(
            entry.data, task=entry.task, dev=entry.dev, kind=entry.kind, evaluating=True
        )
        sets[task] = as_the_model_counts(examples, one.labels, one.kind, model=source, error=ModelError)
    return SeveralTasks(Classifier(source, model, load_tokenizer(source)), record, sets)


def read_subject(
    run: str, *, teacher: str | None = None, data: str | None = None, dev: str | None = None, task: str | None = None
) -> Subject:
    """The student of a run folder, or the model of a folder without run.json, with what it is measured on.

    teacher, data, dev, task   of a run: where they are now, if they have moved; of a model folder: `data` is required,
                               and read by the columns that the model was trained on
    Raises ConfigError: a run of raw text, one that has not finished, no data; ModelError, DataError, TeacherError:
    what cannot be loaded, does not fit, or is not what the run was made with.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise ModelError(f"there is no folder {run}; name a run folder of emdistill distill, or a model's folder")
    if not (folder / RUN_FILE).is_file():
        return _model_subject(folder, teacher, data, dev, task)
    record = read_run(folder)
    config = check_record(record.config, DataOptions, folder / RUN_FILE, within="config")
    if record.task is None or config.task == RAW_TEXT:
        raise ConfigError(
            f"{folder} is a student of raw text, without a head: it has no task to be scored on; distil it on a task "
            f"first: emdistill distill --student {folder / 'student'}"
        )
    if not record.is_finished:
        raise ConfigError(f"{folder} is a run that has not finished; finish it first, with --resume")
    if not (data or config.data):
        raise ConfigError(f"{folder} learned from a teacher and text alone; name labelled rows to score on: --data")
    place = folder / "student"
    student = _load(str(place if place.is_dir() else folder))
    with _moved(folder, "data", data is None):
        reading = Reading(config.text, config.text_pair, config.label)
        options = {"task": task or config.task, "dev": dev or config.dev, "kind": config.kind}
        examples = reading.read(data or config.data, **options, evaluating=True)
    _check_same_data(folder, record.task, examples)
    measured = isinstance(record.teacher, ModelRecord) and len(record.teachers) < 2  # there is one model to run
    source = teacher or (config.teacher if measured else None)
    with _moved(folder, "teacher", teacher is None):
        taught_by = None if source is None else _load(source)
    recorded = record.hashes.get("teacher")  # a fine-tuned model's run has none
    if taught_by is not None and recorded not in (None, Teacher(taught_by.model).fingerprint):
        raise TeacherError(f"{source} is not the teacher of {folder}: its weights are others; name that one")
    return _fitting(student, taught_by, examples, config.max_length)


def _model_subject(folder: Path, teacher: str | None, data: str | None, dev: str | None, task: str | None) -> Subject:
    if data is None:
        raise ConfigError(
            f"{folder} holds no {RUN_FILE}, so what it is scored on has to be named: --data; or name the run's folder"
        )
    student = _load(str(folder))
    reading = recall_reading(student.model)
    examples = reading.read(data, task=task, dev=dev, kind=None if task else Teacher(student.model).kind.name)
    taught_by = None if teacher is None else _load(teacher)
    return _of_a_model(student, taught_by, examples, reading.max_length)


def subject_of(model: str, data: TaskData, max_length: int) -> Subject:
    """A classifier, a folder or hub id, and data that are read already; no teacher is known. Raises ModelError."""
    return _of_a_model(_load(model), None, data, max_length)


def _of_a_model(student: Classifier, teacher: Classifier | None, data: TaskData, max_length: int) -> Subject:
    """What no run made: the exported folder reads texts as they are scored here."""
    max_length = min(max_length, longest_text(student.model))
    if "emdistill" not in student.model.config.to_dict():
        remember_reading(student.model, student.tokenizer, data.task, max_length)
    return _fitting(student, teacher, data, max_length)


def _fitting(student: Classifier, teacher: Classifier | None, data: TaskData, max_length: int) -> Subject:
    """The data count labels as the student does; the teacher must count them alike."""
    check_max_length(max_length, student.model)
    data = _counted(data, student)
    if teacher is not None:
        check_max_length(max_length, teacher.model)
        if _counted(data, teacher).task.labels != data.task.labels:
            raise TeacherError(
                f"{teacher.source} has its labels in another order than {student.source}: not its teacher"
            )
    return Subject(student, teacher, data, max_length)


def _counted(data: TaskData, classifier: Classifier) -> TaskData:
    model = Teacher(classifier.model)
    return as_the_model_counts(data, model.labels, model.kind, model=classifier.source)


def _load(source: str) -> Classifier:
    return Classifier(source, load_classifier(source), load_tokenizer(source))


@contextmanager
def _moved(folder: Path, option: str, as_recorded: bool) -> Iterator[None]:
    """What run.json names may have moved since: an error that it causes names the option that tells where."""
    try:
        yield
    except EmdistillError as error:
        if not as_recorded:
            raise
        raise type(error)(f"{error}\n{folder / RUN_FILE} names it; if it has moved, say where to: --{option}") from None


def _check_same_data(folder: Path, task: TaskRecord, data: TaskData) -> None:
    now = {file.sha256 for file in data.files}
    other = [file.name for file in task.files if file.sha256 not in now]
    if other:
        raise DataError(
            f"{', '.join(other)} as {folder} was made with {'is' if len(other) == 1 else 'are'} not among "
            f"{', '.join(str(file.path) for file in data.files) or 'what was read'}: the contents are others; "
            "name the same data with --data (and --dev)"
        )
