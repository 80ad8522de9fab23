"""What goes into a record: versions, hashes, the shapes of models, the task and its data."""

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from emdistill.config import RunConfig, holds_model, student_recipe
from emdistill.console import counted
from emdistill.data.batches import note_cut
from emdistill.data.unlabelled import texts_kept
from emdistill.files import sha256
from emdistill.models.encoder import encoder_shape
from emdistill.models.inputs import longest_text
from emdistill.models.size import model_size, parameter_count
from emdistill.models.stored_weights import weight_files
from emdistill.runs.record import FileRecord, ModelRecord, RunRecord, TaskRecord
from emdistill.tasks.mixture import MEAN, MIXTURE
from emdistill.tasks.task import TaskData
from emdistill.training.lesson import Lesson

PACKAGES = ("emdistill", "torch", "transformers", "datasets", "POT", "numpy")


def versions() -> dict[str, str]:
    """The versions that decide a result, and when it was made."""
    packages = {name: version(name) for name in PACKAGES}
    return {**packages, "python": platform.python_version(), "date": datetime.now(UTC).isoformat(timespec="seconds")}


def file_hashes(data: TaskData) -> dict[str, str]:
    """SHA-256, by name."""
    return by_name({str(file.path): file.sha256 for file in data.files})


def student_hashes(config: RunConfig) -> dict[str, str]:
    """SHA-256 of the weights in the folders that --student and --student-source name, by option."""
    places = {name: getattr(config, name) for name in ("student", "student_source")}
    folders = {name: Path(place).expanduser() for name, place in places.items() if place and holds_model(place)}
    return {name: _sha256_of_all(weight_files(folder)) for name, folder in folders.items()}


def _sha256_of_all(files: Sequence[Path]) -> str:
    """That of one file, or of the hashes of several."""
    hashes = [sha256(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def by_name(hashes: Mapping[str, str]) -> dict[str, str]:
    """Hashes of files by their names, not their paths; by the whole path where two files have one name."""
    names = Counter(Path(path).name for path in hashes)
    return {path if names[Path(path).name] > 1 else Path(path).name: digest for path, digest in hashes.items()}


def describe_model(model: PreTrainedModel, cut_out: Sequence[dict[str, Any]] = ()) -> ModelRecord:
    """A model's size, shape and family."""
    size = parameter_count(model), model_size(model)
    return ModelRecord(*size, encoder_shape(model), tuple(cut_out), model.config.model_type)


def describe_data(data: TaskData) -> TaskRecord:
    """The task and its data."""
    task = data.task
    return TaskRecord(
        name=task.name,
        description=task.description,
        pairs=task.text_pair is not None,
        kind=task.kind.name,
        labels=task.labels,
        metrics=task.metrics,
        train_rows=len(data.train),
        evaluation_rows={name: len(part) for name, part in data.evaluation.items()},
        files=tuple(FileRecord(file.path.name, file.rows, file.sha256) for file in data.files),
        held_out=data.held_out,
    )


def describe_together(tasks: Mapping[str, TaskRecord]) -> TaskRecord:
    """All tasks as one, for whoever reads the scores of a run."""
    return TaskRecord(
        name="+".join(tasks),
        kind=MIXTURE,
        labels=(),
        metrics=(MEAN, *(f"{name}/{metric}" for name, task in tasks.items() for metric in task.metrics)),
        evaluation_rows={"dev": sum(next(iter(task.evaluation_rows.values())) for task in tasks.values())},
        train_rows=sum(task.train_rows for task in tasks.values()),
        files=tuple(
            FileRecord(f"{name}/{file.name}", file.rows, file.sha256)
            for name, task in tasks.items()
            for file in task.files
        ),
        held_out="; ".join(f"{name}: {task.held_out}" for name, task in tasks.items() if task.held_out) or None,
    )


def objective_and_sizes(record: RunRecord) -> str:
    """What is learned and by how large a student, for people: the stages' equations, and the parameters."""
    assert record.student is not None
    equations = "\n".join(f"{name}: {equation}" for name, equation in record.objective.items())
    models = {"teacher": record.teacher, "student": record.student}
    sizes = [f"{name} {each.parameters:,} parameters" for name, each in models.items() if isinstance(each, ModelRecord)]
    return f"{equations}\n{', '.join(sizes)}"


def outline(record: RunRecord, lesson: Lesson) -> str:
    """What is learned, from how many rows in how many steps, as a run says it before it begins."""
    assert record.task is not None
    held_out = f"; {record.task.held_out}" if record.task.held_out else ""
    lines = [
        f"{record.task.name}: {record.learned_from} to learn from, "
        f"{counted(record.steps_per_epoch or 0, 'step')} an epoch"
        f"{held_out}; {record.selection}"
    ]
    if record.unlabelled:
        lines.append(texts_kept(record.unlabelled))
        lines += [
            f"stage {stage.name} has no teacher: it learns from the {len(lesson.rows_of(stage)):,} labelled rows "
            f"alone, {counted(settings.max_steps, 'step')}"
            for stage, settings in zip(lesson.stages, lesson.arguments, strict=True)
            if not stage.objective.taught
        ]
    if cut := record.texts_cut_at_max_length:
        lines.append(note_cut(cut, record.texts, record.config["max_length"], longest_text(lesson.student)))
    lines.append(f"{record.share_of_padding:.1%} of the positions in its batches are padding")
    if own := student_recipe(record.config["student"]):
        numbers = ", ".join(f"{name.removeprefix('training.')} {value}" for name, value in own.items())
        lines.append(f"a {record.config['student']} is learned by, where nothing else is said: {numbers}")
    lines.append(objective_and_sizes(record))
    if lesson.teacher_tokenizer is not None:
        lines.append("teacher and student read the texts in tokens of their own; states meet at words")
    return "\n".join(lines)
