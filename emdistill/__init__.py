"""emdistill: distil a fine-tuned BERT-family encoder into a small, fast student that keeps its quality.

from emdistill import distill, DistillationTrainer, DistillationArguments
from emdistill.mapping import layer_costs, solve_transport, EmdMapping
"""

from emdistill.commands.distill import distill
from emdistill.commands.finetune import finetune
from emdistill.config import FinetuneConfig, RunConfig
from emdistill.models.capture import capture
from emdistill.models.teacher import Teacher
from emdistill.runs.student_artifact import StudentArtifact
from emdistill.training import DistillationArguments, DistillationTrainer

__all__ = [
    "DistillationArguments",
    "DistillationTrainer",
    "FinetuneConfig",
    "RunConfig",
    "StudentArtifact",
    "Teacher",
    "capture",
    "distill",
    "finetune",
]
