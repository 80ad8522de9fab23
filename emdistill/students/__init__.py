"""How the student is born: STUDENTS lists the ways, make_student reads `--student` and takes one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.errors import ConfigError, ModelError
from emdistill.models.encoder import HUB_ID, Source, encoder_layers, name_outputs
from emdistill.students.fresh import fresh_student
from emdistill.students.keep_layers import evenly_spaced, keep_layers
from emdistill.students.pretrained import pretrained_student

Student = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class StudentRequest:
    """What a student is made from: the `--student` text, the teacher, the task's outputs, a seed.

    source   an encoder to keep layers of instead of the teacher's, e.g. the one it was fine-tuned from
    """

    spec: str
    teacher: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    regression: bool
    seed: int
    source: Source | None


@dataclass(frozen=True)
class StudentKind:
    """One way to write `--student`, and who builds it."""

    example: str
    pattern: re.Pattern[str]
    description: str
    build: Callable[[StudentRequest], Student]


def make_student(
    spec: str,
    teacher_model: PreTrainedModel,
    teacher_tokenizer: PreTrainedTokenizerBase,
    *,
    labels: Sequence[str] = (),
    regression: bool = False,
    seed: int = 0,
    source: Source | None = None,
) -> Student:
    """The student that `spec` describes, trainable and apart from the teacher, with its tokenizer.

    The forms of `spec` are those of STUDENTS. With `source` the kept layers, embeddings, pooler and head come from
    that encoder, which must have the teacher's tokens. The same seed gives the same weights.
    Raises ConfigError for a spec of no form, LayerCountError for layers that are not there,
    ModelError and TokenizerError for an encoder that cannot be used.
    """
    kind = STUDENTS[student_kind(spec)]
    return kind.build(StudentRequest(spec, teacher_model, teacher_tokenizer, tuple(labels), regression, seed, source))


def student_kind(spec: str) -> str:
    """The name in STUDENTS of the form that `spec` has; raises ConfigError for none of them."""
    if spec and not spec.isdigit() and Path(spec).expanduser().is_dir():
        return "pretrained"
    for name, kind in STUDENTS.items():
        if kind.pattern.fullmatch(spec):
            return name
    forms = "; ".join(f"{kind.example}: {kind.description}" for kind in STUDENTS.values())
    raise ConfigError(f"--student {spec!r} names neither layers, a shape, a folder nor a hub id. Write {forms}")


def _keep_count(request: StudentRequest) -> Student:
    encoder = _kept_from(request)
    return _keep(request, encoder, evenly_spaced(int(request.spec), len(encoder_layers(encoder))))


def _keep_list(request: StudentRequest) -> Student:
    layers = tuple(int(number) for number in request.spec.split(",") if number)
    return _keep(request, _kept_from(request), layers)


def _keep(request: StudentRequest, encoder: PreTrainedModel, layers: Sequence[int]) -> Student:
    student = keep_layers(encoder, layers)
    outputs = 1 if request.regression else len(request.labels)
    if student.config.num_labels != outputs:
        raise ModelError(
            f"the teacher's head has {student.config.num_labels} outputs, the task {outputs}; "
            "take a teacher that was fine-tuned on this task"
        )
    name_outputs(student.config, labels=request.labels, regression=request.regression)
    return student, request.tokenizer


def _kept_from(request: StudentRequest) -> PreTrainedModel:
    """The encoder whose layers are kept: the teacher, or the source with a head for the task."""
    if request.source is None:
        return request.teacher
    encoder, _ = pretrained_student(
        request.source, request.tokenizer, labels=request.labels, regression=request.regression, seed=request.seed
    )
    return encoder


def _fresh(request: StudentRequest) -> Student:
    _refuse_source(request)
    sizes = [int(number) for number in request.spec.split("x")]
    student = fresh_student(
        request.teacher, *sizes, labels=request.labels, regression=request.regression, seed=request.seed
    )
    return student, request.tokenizer


def _pretrained(request: StudentRequest) -> Student:
    _refuse_source(request)
    return pretrained_student(
        request.spec, request.tokenizer, labels=request.labels, regression=request.regression, seed=request.seed
    )


def _refuse_source(request: StudentRequest) -> None:
    if request.source is not None:
        raise ConfigError(
            f"--student {request.spec} keeps no layers, so it takes none from {request.source}; "
            "leave the source encoder out, or name layers: 3 or 1,3,5"
        )


STUDENTS = {
    "layer-count": StudentKind(
        "3",
        re.compile(r"\d+"),
        "that many of the teacher's layers, evenly spaced, the last one among them",
        _keep_count,
    ),
    "layer-list": StudentKind(
        "1,3,5", re.compile(r"\d+(,\d+)+|\d+,"), "these of the teacher's layers, counted from 0", _keep_list
    ),
    "fresh": StudentKind(
        "4x312",
        re.compile(r"\d+x\d+(x\d+x\d+)?"),
        "layers × width, fresh weights (4x312x12x1200 names heads and feed-forward width too)",
        _fresh,
    ),
    "pretrained": StudentKind(
        "DIR_OR_HUB_ID",
        # A hub id: an owner and a name, or a name that starts with a letter, so that a mistyped shape is none.
        re.compile(rf"(?=[A-Za-z]|[^/]+/){HUB_ID.pattern}"),
        "a small pretrained encoder that reads the teacher's tokens",
        _pretrained,
    ),
}

__all__ = [
    "STUDENTS",
    "Student",
    "StudentKind",
    "StudentRequest",
    "evenly_spaced",
    "fresh_student",
    "keep_layers",
    "make_student",
    "pretrained_student",
    "student_kind",
]
