"""How the student learns: one loop for every method."""

from emdistill.training.arguments import DistillationArguments
from emdistill.training.evaluate import evaluate, predict_logits
from emdistill.training.stage import Stage
from emdistill.training.trainer import DistillationTrainer

__all__ = ["DistillationArguments", "DistillationTrainer", "Stage", "evaluate", "predict_logits"]
