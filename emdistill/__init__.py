"""emdistill: distil a fine-tuned BERT-family encoder into a small, fast student that keeps its quality.

from emdistill import distill, DistillationTrainer, DistillationArguments
from emdistill.mapping import layer_costs, solve_transport, EmdMapping
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emdistill.commands.distill import distill as distill
    from emdistill.commands.finetune import finetune as finetune
    from emdistill.config import FinetuneConfig as FinetuneConfig
    from emdistill.config import RunConfig as RunConfig
    from emdistill.models.capture import capture as capture
    from emdistill.models.teacher import Teacher as Teacher
    from emdistill.options import load_config as load_config
    from emdistill.options import load_finetune_config as load_finetune_config
    from emdistill.runs.student_artifact import StudentArtifact as StudentArtifact
    from emdistill.training import DistillationArguments as DistillationArguments
    from emdistill.training import DistillationTrainer as DistillationTrainer

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
    "load_config": "options",
    "load_finetune_config": "options",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
