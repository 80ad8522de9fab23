"""A stage of training: an objective, and what it changes in the training arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emdistill.losses import Objective


@dataclass(frozen=True)
class Stage:
    """One objective trained once; a method is a list of stages, run in order on the same student.

    training   TrainingArguments this stage sets for itself, over the recipe's (learning rate, schedule)
    share      its share of the run's epochs or steps: num_train_epochs is what all stages of a method have together
    slow_below  the student's layers below this one, and its embeddings, learn slowly (training/learning_rates.py);
                0: all learn alike
    self_taught   whether the student's own answers, as it gives them in use, stand for a teacher's
    """

    name: str
    objective: Objective
    training: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0
    slow_below: int = 0
    self_taught: bool = False

    @property
    def reads_teacher(self) -> bool:
        """Whether somebody else teaches."""
        return self.objective.taught and not self.self_taught
