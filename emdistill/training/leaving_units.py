"""Units leave a student while it trains (students/gradual.py); what has left stands in its checkpoints."""

from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState

from emdistill.students.gradual import leave, note_gradients
from emdistill.students.shape import StudentShape


class LeavingUnits(TrainerCallback):
    """Measures the units of `student` by every step's gradients, and brings it to `target` by the last step."""

    def __init__(self, student: PreTrainedModel, target: StudentShape) -> None:
        self.student = student
        self.target = target

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        note_gradients(self.student)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        leave(self.student, self.target, state.global_step / state.max_steps)
