"""How the student is born: STUDENTS lists the ways, make_student reads `--student` and takes one."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.config import HUB_ID, Birth, holds_model
from emdistill.errors import ConfigError, ModelError
from emdistill.models.chain import WORD, read_operators
from emdistill.models.encoder import encoder_shape
from emdistill.models.families import require
from emdistill.models.stored_config import Source
from emdistill.states import CLASSES, Predictions
from emdistill.students.bag import bag_student
from emdistill.students.bilstm import bilstm_student
from emdistill.students.chain import chain_student
from emdistill.students.extract import ExtractionPlan, check_part, cut_out, plan_extraction
from emdistill.students.factorise import check_factorisable, factorise_embeddings
from emdistill.students.fresh import fresh_student
from emdistill.students.importance import Importance, random_importance, taylor_importance
from emdistill.students.keep_layers import evenly_spaced, keep_layers
from emdistill.students.mobilebert import FORM, mobilebert_student
from emdistill.students.pretrained import pretrained_student
from emdistill.students.shape import complete_shape, name_predictions

Student = tuple[PreTrainedModel, PreTrainedTokenizerBase]
Sample = Callable[[PreTrainedTokenizerBase], list[dict[str, Tensor]]]


@dataclass(frozen=True)
class StudentRequest:
    """What a student is made from: the arguments of make_student."""

    spec: str
    teacher: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    predictions: Predictions
    seed: int
    source: Source | None
    birth: Birth
    sample: Sample | None
    record: Callable[[ExtractionPlan], object] | None

    @property
    def asks(self) -> dict[str, Any]:
        """What a student's head is to answer, and the seed of what is drawn."""
        return {"labels": self.labels, "predictions": self.predictions, "seed": self.seed}

    @property
    def fresh(self) -> bool:
        """Whether all weights are drawn."""
        return self.birth == "fresh"


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
    predictions: Predictions = CLASSES,
    seed: int = 0,
    source: Source | None = None,
    birth: Birth = "importance",
    embedding_rank: int | None = None,
    sample: Sample | None = None,
    record: Callable[[ExtractionPlan], object] | None = None,
) -> Student:
    """The student that `spec` describes, trainable and apart from the teacher, with its tokenizer.

    spec            a form of STUDENTS
    seed            the same seed gives the same weights
    source          an encoder that gives the layers kept, embeddings, pooler, head and tokenizer instead of the
                    teacher, e.g. the one it was fine-tuned from
    birth           weights of a student of a given shape (4x312): the teacher's units of highest importance, its units
                    drawn at random, or fresh ones
    embedding_rank  width of factorised embedding tables (factorise.py) of a BERT; None: that of its layers
    sample          gives batches of a tokenizer's tensors with `labels`; called at most once per tokenizer: to cut a
                    student from the teacher (importance needs it, the means of states use it), or to factorise
                    embeddings
    record          called with the ExtractionPlan of a student cut from the teacher
    Raises ConfigError for a spec of no form, a shape that is no part of the teacher, embeddings that cannot be
    factorised so, a birth that is a training; LayerCountError for layers that are not there; ModelError and
    TokenizerError for an encoder that cannot be used.
    """
    if birth == "gradual":
        raise ConfigError(
            "--student-birth gradual is a training of its own: `emdistill distill` does it for one task, no mixture "
            "and no raw text; choose importance, random or fresh here"
        )
    sample = sample and cache(sample)
    request = StudentRequest(
        spec, teacher_model, teacher_tokenizer, tuple(labels), predictions, seed, source, birth, sample, record
    )
    student, student_tokenizer = STUDENTS[student_kind(spec)].build(request)
    if embedding_rank is not None:
        check_factorisable(student, embedding_rank)  # before the sample is made
        student = factorise_embeddings(student, embedding_rank, sample(student_tokenizer) if sample else (), seed=seed)
    return student, student_tokenizer


def student_kind(spec: str) -> str:
    """The name in STUDENTS of the form that `spec` has; raises ConfigError for none of them."""
    if holds_model(spec):
        return "pretrained"
    for name, kind in STUDENTS.items():
        if kind.pattern.fullmatch(spec):
            return name
    if spec and Path(spec).expanduser().is_dir():  # what it lacks is said when it is loaded
        return "pretrained"
    forms = "; ".join(f"{kind.example}: {kind.description}" for kind in STUDENTS.values())
    raise ConfigError(f"--student {spec!r} names neither layers, a shape, a folder nor a hub id. Write {forms}")


def _keep_count(request: StudentRequest) -> Student:
    encoder, tokenizer = _kept_from(request)
    first = require(encoder, "keep").keeps_first
    layers = evenly_spaced(int(request.spec), encoder_shape(encoder).layers, first=first)
    return _with_teachers_head(request, keep_layers(encoder, layers)), tokenizer


def _keep_list(request: StudentRequest) -> Student:
    layers = tuple(int(number) for number in request.spec.split(",") if number)
    encoder, tokenizer = _kept_from(request)
    return _with_teachers_head(request, keep_layers(encoder, layers)), tokenizer


def _with_teachers_head(request: StudentRequest, student: PreTrainedModel) -> PreTrainedModel:
    """The student, its head named for the task; raises ModelError where the head is for another number of outputs."""
    outputs = len(request.labels) or 1
    if request.predictions.of_task and student.config.num_labels != outputs:
        raise ModelError(
            f"the teacher's head has {student.config.num_labels} outputs, the task {outputs}; "
            "take a teacher that was fine-tuned on this task"
        )
    name_predictions(student.config, request.labels, request.predictions)
    return student


def _kept_from(request: StudentRequest) -> Student:
    """The encoder that gives its layers, and its tokenizer: the teacher, or the source with a head for the task."""
    return (request.teacher, request.tokenizer) if request.source is None else _load(request, request.source)


def _load(request: StudentRequest, source: Source) -> Student:
    return pretrained_student(source, **request.asks)


def _shape(request: StudentRequest) -> Student:
    _refuse_source(request)
    sizes = [int(number) for number in request.spec.split("x")]
    if request.fresh:
        return fresh_student(request.teacher, *sizes, **request.asks), request.tokenizer
    return _with_teachers_head(request, _cut(request, sizes)), request.tokenizer


def _cut(request: StudentRequest, sizes: Sequence[int]) -> PreTrainedModel:
    """What is cut out of the teacher: layers × width, perhaps × heads × feed-forward width."""
    teacher = request.teacher
    require(teacher, "cut")
    shape = complete_shape(teacher.config, *sizes)
    check_part(teacher, shape)  # before the sample is made
    batches = [] if request.sample is None else request.sample(request.tokenizer)
    plan = plan_extraction(teacher, shape, _importance(request, batches))
    if request.record is not None:
        request.record(plan)
    return cut_out(teacher, plan, batches)


def _importance(request: StudentRequest, batches: list[dict[str, Tensor]]) -> Importance:
    if request.birth == "random":
        return random_importance(request.teacher, request.seed)
    if not batches:
        raise ConfigError(
            f"--student {request.spec}: the importance of the teacher's units is measured on a sample of texts; "
            "give make_student one, or choose --student-birth random or fresh"
        )
    return taylor_importance(request.teacher, batches, seed=request.seed)


def _bilstm(request: StudentRequest) -> Student:
    encoder, tokenizer = _kept_from(request)
    ends = tokenizer.cls_token_id, tokenizer.sep_token_id
    return bilstm_student(encoder, ends=ends, **_over_tokens(request, "units")), tokenizer


def _bag(request: StudentRequest) -> Student:
    encoder, tokenizer = _kept_from(request)
    return bag_student(encoder, tokenizer.sep_token_id, **_over_tokens(request, "width")), tokenizer


def _over_tokens(request: StudentRequest, size: str) -> dict[str, Any]:
    """The options of a student that takes the table of tokens alone; its `size` where it is written, as in bag:128."""
    _, colon, number = request.spec.partition(":")
    return {**request.asks, "fresh": request.fresh, **({size: int(number)} if colon else {})}


def _chain(request: StudentRequest) -> Student:
    word, _, digits = request.spec.removeprefix("chain:").partition("x")
    operators, width = read_operators(word), int(digits) if digits else None
    if width is not None:
        _refuse_source(request)
    encoder, tokenizer = _kept_from(request)
    if width is not None and not request.fresh:
        encoder, width = _cut(request, (encoder_shape(encoder).layers, width)), None
    return chain_student(encoder, operators, width, fresh=request.fresh, **request.asks), tokenizer


def _mobilebert(request: StudentRequest) -> Student:
    encoder, tokenizer = _kept_from(request)
    return mobilebert_student(encoder, request.spec, fresh=request.fresh, **request.asks), tokenizer


def _pretrained(request: StudentRequest) -> Student:
    _refuse_source(request)
    return _load(request, request.spec)


def _refuse_source(request: StudentRequest) -> None:
    if request.source is not None:
        raise ConfigError(
            f"--student {request.spec} keeps no layers, so it takes none from {request.source}; "
            "leave out --student-source, or name layers: 3 or 1,3,5"
        )


# `emdistill students` reads `example` and `description` from this source.
STUDENTS = {
    "layer-count": StudentKind(
        example="3",
        pattern=re.compile(r"\d+"),
        description="that many of the teacher's layers, evenly spaced, the last one among them",
        build=_keep_count,
    ),
    "layer-list": StudentKind(
        example="1,3,5",
        pattern=re.compile(r"(\d+,)+\d*"),
        description="these of the teacher's layers, counted from 0",
        build=_keep_list,
    ),
    "shape": StudentKind(
        example="4x312",
        pattern=re.compile(r"\d+x\d+(x\d+x\d+)?"),
        description="layers × width, cut from the teacher, or fresh: --student-birth (4x312x12x1200 names heads and "
        "feed-forward width too)",
        build=_shape,
    ),
    "bilstm": StudentKind(
        example="bilstm",
        pattern=re.compile(r"bilstm(:\d+)?"),
        description="two BiLSTM layers of 256 units per direction, or of 128: bilstm:128, over the teacher's tokens",
        build=_bilstm,
    ),
    "bag": StudentKind(
        example="bag",
        pattern=re.compile(r"bag(:\d+)?"),
        description="no layers: a bag of the teacher's tokens and pairs of them, 128 wide, or 64: bag:64",
        build=_bag,
    ),
    "chain": StudentKind(
        example="chain:afafaf",
        pattern=re.compile(rf"chain:({WORD.pattern})+(x\d+)?"),
        description="operators in this order: a attention, f feed-forward, c or c5 and d or d9 convolutions over so "
        "many tokens; from the teacher's layers, or cut to a width: chain:afafafx256",
        build=_chain,
    ),
    "mobilebert": StudentKind(
        example="mobilebert:6x384x96x2",
        pattern=FORM,
        description="MobileBERT: layers × width × width within layers × feed-forward networks; the published shape: "
        "mobilebert; its norm and activation: mobilebert-layer_norm-gelu; a teacher, wider within: mobilebert-teacher",
        build=_mobilebert,
    ),
    "pretrained": StudentKind(
        example="DIR_OR_HUB_ID",
        # A hub id: an owner and a name, or a name that starts with a letter, so that a mistyped shape is none.
        pattern=re.compile(rf"(?=[A-Za-z]|[^/]+/){HUB_ID.pattern}"),
        description="a small pretrained encoder, which may read other tokens than the teacher",
        build=_pretrained,
    ),
}

__all__ = [
    "STUDENTS", "ExtractionPlan", "evenly_spaced", "fresh_student", "keep_layers", "make_student", "student_kind",
]  # fmt: skip
