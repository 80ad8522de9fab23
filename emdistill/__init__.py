"""emdistill: distil a fine-tuned BERT-family encoder into a small, fast student that keeps its quality.

from emdistill import distill, DistillationTrainer, DistillationArguments
from emdistill.mapping import layer_costs, solve_transport, EmdMapping
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Imported on first use, for the command line's help and lists need no torch.
_MODULES = {
    "DistillationArguments": "training",
    "DistillationTrainer": "training",
    "FinetuneConfig": "config",
    "RunConfig": "config",
    "StudentArtifact": "runs.student_artifact",
    "Teacher": "models.teacher",
    "capture": "models.capture",
    "distill": "commands.distill",
    "finetune": "commands.finetune",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
