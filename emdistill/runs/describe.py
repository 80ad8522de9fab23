"""What goes into a record: versions, hashes, the shapes of models, the task and its data."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from transformers import PreTrainedModel

from emdistill.models.arithmetic import onednn_keeps_float32
from emdistill.models.encoder import encoder_shape
from emdistill.models.size import model_size, parameter_count
from emdistill.runs.record import FileRecord, ModelRecord, RunRecord, TaskRecord
from emdistill.tasks.task import TaskData
from emdistill.training.arguments import DistillationArguments

PACKAGES = ("emdistill", "torch", "transformers", "datasets", "POT", "numpy")


def versions() -> dict[str, str]:
    """The versions that decide a result, and when it was made."""
    packages = {name: version(name) for name in PACKAGES}
    return {**packages, "python": platform.python_version(), "date": datetime.now(UTC).isoformat(timespec="seconds")}


def file_hashes(data: TaskData) -> dict[str, str]:
    """File name -> SHA-256; the whole path where two files have one name."""
    names = [file.path.name for file in data.files]
    return {str(f.path) if names.count(f.path.name) > 1 else f.path.name: f.sha256 for f in data.files}


def describe_model(model: PreTrainedModel, cut_out: Sequence[dict[str, Any]] = ()) -> ModelRecord:
    """A model's size and shape."""
    return ModelRecord(parameter_count(model), model_size(model), encoder_shape(model), tuple(cut_out))


def describe_arithmetic(arguments: DistillationArguments) -> dict[str, Any]:
    """What the teacher computes in, and by what float32 products are made."""
    return {
        "teacher": str(arguments.teacher_dtype).removeprefix("torch."),
        "float32 products by oneDNN": onednn_keeps_float32(),
    }


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


def objective_and_sizes(record: RunRecord) -> str:
    """What is learned and by how large a student, for people: the stages' equations, and the parameters."""
    assert record.student is not None
    equations = "\n".join(f"{name}: {equation}" for name, equation in record.objective.items())
    models = {"teacher": record.teacher, "student": record.student}
    sizes = [f"{name} {each.parameters:,} parameters" for name, each in models.items() if isinstance(each, ModelRecord)]
    return f"{equations}\n{', '.join(sizes)}"
