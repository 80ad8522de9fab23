"""A run proves that it can learn before anything of an earlier one is removed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from emdistill.models.arithmetic import fast_float32
from emdistill.models.capture import capture
from emdistill.models.teacher import TeacherSource
from emdistill.training.arguments import DistillationArguments
from emdistill.training.stage import Stage


def dry_step(
    student: PreTrainedModel,
    teacher: TeacherSource | None,
    stages: Sequence[Stage],
    arguments: Sequence[DistillationArguments],
    batch: Mapping[str, Tensor],
) -> None:
    """One batch forward and backward through teacher, capture and objective of every stage; all stays as it was.

    batch   as training has it, on the student's device
    Raises whatever the first training step would raise.
    """
    was_training = student.training
    devices = [student.device] if student.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), fast_float32():
        for stage, settings in zip(stages, arguments, strict=True):
            student.train()
            objective = copy.deepcopy(stage.objective).to(student.device)
            if settings.gradient_checkpointing:
                student.gradient_checkpointing_enable()  # type: ignore[no-untyped-call]
            try:
                states = capture(student, batch, objective.needs, objective.student_layers)
                taught = teacher is not None and objective.taught
                lesson = teacher(batch, objective.needs, objective.teacher_layers) if teacher and taught else states
                objective(states, lesson, batch)[0].backward()
            finally:
                if settings.gradient_checkpointing:
                    student.gradient_checkpointing_disable()  # type: ignore[no-untyped-call]
                student.zero_grad(set_to_none=True)
                student.train(was_training)
