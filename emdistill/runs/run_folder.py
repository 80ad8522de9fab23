"""The run folder: what stands in it, when it may be written, and its run.json.

RUN/
├── student/            plain transformers model and tokenizer, with a model card
├── run.json            resolved configuration, seed, versions, hashes, scores, timings
├── predictions.jsonl   what teacher and student answer to every row of dev (format: runs/answers.py)
├── flows.jsonl         flows and layer weights over the steps (format: runs/flows.py)
├── flows.png           the last flow of each layer term
├── layer_weights.png   layer weights over the steps
├── report.html         scores, sizes, losses, flows and answers on one page
├── onnx/               the student for ONNX Runtime, once `emdistill export` has made it
├── tensorboard/        the training log
├── checkpoints/        while the run is under way (kept afterwards with --keep-checkpoints)
└── teacher_cache/      likewise: teacher outputs that are read at every epoch, where no other folder is named
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from emdistill.errors import OutputError
from emdistill.files import write_whole
from emdistill.models.arithmetic import onednn_keeps_float32
from emdistill.models.encoder import encoder_shape
from emdistill.models.size import model_size, parameter_count
from emdistill.models.teacher import Teacher
from emdistill.tasks.task import TaskData
from emdistill.training.arguments import DistillationArguments
from emdistill.training.stage import Stage

RUN_FILE = "run.json"
PICTURES = ("flows.png", "layer_weights.png", "report.html")
GATE = Path("onnx", "gate.json")
OWN_FILES = (
    "student",
    RUN_FILE,
    "predictions.jsonl",
    "flows.jsonl",
    *PICTURES,
    "onnx",
    "tensorboard",
    "checkpoints",
    "teacher_cache",
)
# What a run may be resumed with another value of: names of places, where contents count (they are compared by hash).
PLACES = ("output", "teacher", "model", "data", "dev", "keep_checkpoints", "teacher_cache_folder")


def check_output(folder: Path, *, overwrite: bool, resume: bool, inputs: Iterable[str | None] = ()) -> None:
    """Refuse a folder that holds something, unless told what to do with it; writes nothing.

    inputs   what the run reads: a model or file that the run's own files would replace is refused
    Raises OutputError: both flags, a folder with a run and no flag, a folder with something else, nothing to resume,
    a place that cannot be written.
    """
    if overwrite and resume:
        raise OutputError("--overwrite and --resume exclude each other: replace the run, or go on with it")
    nearest_folder = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest_folder.is_dir():
        raise OutputError(f"{nearest_folder} is a file; --output names a folder")
    if not os.access(nearest_folder, os.W_OK | os.X_OK):
        raise OutputError(f"{nearest_folder} may not be written to; choose another --output")
    has_run = (folder / RUN_FILE).exists()
    if resume and not has_run:
        raise OutputError(f"{folder} holds no run to resume; leave out --resume to start one")
    if has_run and not (overwrite or resume):
        raise OutputError(f"{folder} already holds a run; --resume goes on with it, --overwrite replaces it")
    # A cache alone is what is left of a run that was stopped, or refused, before it began.
    if not has_run and folder.is_dir() and {item.name for item in folder.iterdir()} - {"teacher_cache"}:
        raise OutputError(f"{folder} is not empty and holds no run of emdistill; choose another --output")
    own = [folder.resolve() / name for name in OWN_FILES]
    for name in filter(None, inputs):
        place = Path(name).resolve()
        if place == folder.resolve() or any(place.is_relative_to(file) for file in own):
            raise OutputError(f"{name} is read by this run, whose output would replace it; choose another --output")


def clear_run(folder: Path, *, only: tuple[str, ...] = OWN_FILES) -> None:
    """Remove a run's own files from `folder`, and nothing else."""
    for name in only:
        place = folder / name
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run folder; raises OutputError where it is missing or broken."""
    path = folder / RUN_FILE
    try:
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OutputError(f"{folder} holds no {RUN_FILE}: it is no run folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise OutputError(f"{path} is broken ({error}); start again with --overwrite") from None
    return run


def read_gate(folder: Path) -> dict[str, Any] | None:
    """onnx/gate.json of a run folder; None where nothing was measured, or not to its end.

    Raises OutputError where it is broken.
    """
    path = folder / GATE
    if not path.exists():
        return None
    try:
        gate: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        finished = gate["status"] == "finished" and isinstance(gate["variants"], dict)
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is broken ({error}); measure again: emdistill export {folder} --overwrite") from None
    return gate if finished else None


def write_run(folder: Path, run: dict[str, Any]) -> None:
    """Write run.json whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / RUN_FILE, json.dumps(run, indent=2, ensure_ascii=False) + "\n")


def check_same_run(folder: Path, run: dict[str, Any]) -> None:
    """Refuse to resume a run that was started with another configuration, teacher or data.

    Raises OutputError that lists what differs.
    """
    before = read_run(folder)
    differs = [
        f"{section}.{name}: {before.get(section, {}).get(name)!r} then, {value!r} now"
        for section in ("config", "hashes")
        for name, value in run[section].items()
        if (section == "hashes" or name not in PLACES)
        and before.get(section, {}).get(name) != json.loads(json.dumps(value))
    ]
    if differs:
        raise OutputError(
            f"{folder} holds a run of another configuration:\n  "
            + "\n  ".join(differs)
            + "\nresume it as it was started, or replace it with --overwrite"
        )


def versions() -> dict[str, str]:
    """The versions that decide a result, and when it was made."""
    packages = {name: version(name) for name in ("emdistill", "torch", "transformers", "datasets", "POT", "numpy")}
    return {**packages, "python": platform.python_version(), "date": datetime.now(UTC).isoformat(timespec="seconds")}


def file_hashes(data: TaskData) -> dict[str, str]:
    """File name -> SHA-256; the whole path where two files have one name."""
    names = [file.path.name for file in data.files]
    return {str(f.path) if names.count(f.path.name) > 1 else f.path.name: f.sha256 for f in data.files}


def describe_model(model: PreTrainedModel) -> dict[str, Any]:
    """A model's size and shape as plain values."""
    return {
        "parameters": parameter_count(model),
        "bytes": model_size(model),
        "shape": asdict(encoder_shape(model)),
    }


def describe_teaching(
    teacher: Teacher, stages: Sequence[Stage], arguments: Sequence[DistillationArguments]
) -> dict[str, Any]:
    """What teaches, by which objectives, and in which arithmetic."""
    return {
        "arithmetic": {
            "teacher": str(arguments[0].teacher_dtype).removeprefix("torch."),
            "float32 products by oneDNN": onednn_keeps_float32(),
        },
        "objective": {stage.name: str(stage.objective) for stage in stages},
        "teacher": describe_model(teacher.model),
    }


def describe_data(data: TaskData) -> dict[str, Any]:
    """The task and its data as plain values."""
    return {
        "name": data.task.name,
        "description": data.task.description,
        "pairs": data.task.text_pair is not None,
        "kind": data.task.kind,
        "labels": list(data.task.labels),
        "metrics": list(data.task.metrics),
        "train_rows": len(data.train),
        "evaluation_rows": {name: len(part) for name, part in data.evaluation.items()},
        "files": [{"name": file.path.name, "rows": file.rows, "sha256": file.sha256} for file in data.files],
        "held_out": data.held_out,
    }
