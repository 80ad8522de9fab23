"""Who gives the states to learn from: a frozen encoder, a file of answers, or the student as it answers in use."""

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from emdistill.errors import CaptureError, TeacherError
from emdistill.models.capture import capture
from emdistill.models.encoder import encoder_shape, fingerprint, head_of
from emdistill.states import SEQUENCE, TEACHER_LOGITS, EncoderShape, EncoderStates, teacher_part
from emdistill.tasks import TaskKind, kind_of_model


class TeacherSource(Protocol):
    """A source of a teacher's states for a batch: a Teacher, which computes them, or a TeacherCache.

    reads_rows  whether a batch has to number its rows, `row`
    """

    @property
    def shape(self) -> EncoderShape: ...

    @property
    def reads_rows(self) -> bool: ...

    def __call__(
        self, inputs: Mapping[str, Tensor], needs: Collection[str] = (), layers: Collection[int] | None = None
    ) -> EncoderStates: ...


class Teacher:
    """A fine-tuned encoder whose outputs are constants for the student.

    dtype   of its matrix products: float32, or bfloat16 or float16 by autocast
    It is no nn.Module, so that no trainer trains it or saves it with the student.
    """

    reads_rows = False

    def __init__(self, model: PreTrainedModel, *, dtype: torch.dtype = torch.float32) -> None:
        self.model = model.requires_grad_(False)
        self.model.eval()  # type: ignore[no-untyped-call]
        self.dtype = dtype
        self._config: Any = model.config

    def to(self, device: torch.device | str) -> Self:
        """Move the teacher to the student's device."""
        self.model.to(device)  # type: ignore[arg-type]
        return self

    def __call__(
        self, inputs: Mapping[str, Tensor], needs: Collection[str] = (), layers: Collection[int] | None = None
    ) -> EncoderStates:
        """The teacher's states for one batch, as `capture` gives them, without gradient."""
        if self.model.training:
            self.model.eval()  # type: ignore[no-untyped-call]
        reduced = self.dtype != torch.float32
        with torch.no_grad(), torch.autocast(self.model.device.type, self.dtype if reduced else None, enabled=reduced):
            return capture(self.model, teacher_part(inputs), needs, layers)

    @property
    def shape(self) -> EncoderShape:
        """Layers, width and heads."""
        return encoder_shape(self.model)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return fingerprint(self.model)

    @property
    def outputs(self) -> int:
        """The width of the logits."""
        return int(self._config.num_labels)

    @property
    def kind(self) -> TaskKind:
        """The kind of task that it was trained for."""
        return kind_of(self.model)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the logits; LABEL_0 … where nobody named them."""
        return tuple(str(self._config.id2label[index]) for index in range(self.outputs))


class AnswersTeacher:
    """A teacher that is no model: its logits stand in the batch, read from a file of answers. It has no layers."""

    shape = EncoderShape(layers=0, width=0, heads=0)
    reads_rows = False

    def to(self, device: torch.device | str) -> Self:
        """Nothing of it stays on a device."""
        return self

    def __call__(
        self, inputs: Mapping[str, Tensor], needs: Collection[str] = (), layers: Collection[int] | None = None
    ) -> EncoderStates:
        """The logits of a batch; raises CaptureError for states of layers."""
        if needs:
            raise CaptureError(f"a file of answers has no {', '.join(sorted(needs))}; take a teacher that is a model")
        return EncoderStates(logits=inputs[TEACHER_LOGITS], mask=inputs["attention_mask"])


class OwnAnswers:
    """A student that teaches itself: its states at this step, in eval mode, constant for the gradient."""

    reads_rows = False

    def __init__(self, student: PreTrainedModel) -> None:
        self.student = student

    @property
    def shape(self) -> EncoderShape:
        """Layers, width and heads."""
        return encoder_shape(self.student)

    def __call__(
        self, inputs: Mapping[str, Tensor], needs: Collection[str] = (), layers: Collection[int] | None = None
    ) -> EncoderStates:
        """The states of one batch, as `capture` gives them."""
        training = self.student.training
        self.student.train(False)
        try:
            with torch.no_grad():
                return capture(self.student, inputs, needs, layers)
        finally:
            self.student.train(training)


def kind_of(model: PreTrainedModel) -> TaskKind:
    """The kind of task that a model with a head was trained for."""
    config: Any = model.config
    written_by_emdistill = config.to_dict().get("emdistill") or {}
    name = written_by_emdistill.get("kind")
    return kind_of_model(config.problem_type, int(config.num_labels or 1), name, head_of(model) or SEQUENCE)


def check_above_chance(score: float, chance: float, metric: str) -> None:
    """Raise TeacherError unless score ≥ chance + 0.1 · (1 − chance), for a metric whose best value is 1.

    A NaN score is not above chance.
    """
    floor = chance + 0.1 * (1.0 - chance)
    if not score >= floor:
        raise TeacherError(
            f"the teacher's {metric} is {score:.3f}, guessing gives {chance:.3f}: it has nothing to teach (the "
            f"least is {floor:.3f}); check that it was fine-tuned on this task and that its labels are the data's"
        )
