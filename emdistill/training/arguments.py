"""How training runs: transformers' TrainingArguments with this project's defaults and three more."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class DistillationArguments(TrainingArguments):
    """TrainingArguments for distillation; every argument of transformers' own is there too.

    gradient_norm_steps      log each term's gradient norm over the student's weights every so many optimizer
                             steps (each costs one more backward pass a term); 0 = never
    flow_steps               record flows and layer weights every so many optimizer steps; 0 = never
    early_stopping_patience  stop after so many evaluations without a better metric; None = never, nor with
                             --select last, where nothing is scored
    """

    per_device_train_batch_size: int = field(default=32)
    per_device_eval_batch_size: int = field(default=64)
    learning_rate: float = field(default=5e-5)
    warmup_steps: float = field(default=0.1)
    weight_decay: float = field(default=0.01)
    logging_steps: float = field(default=50)
    train_sampling_strategy: str = field(default="group_by_length")
    dataloader_pin_memory: bool = field(default=False)
    gradient_norm_steps: int = field(default=200)
    flow_steps: int = field(default=20)
    early_stopping_patience: int | None = field(default=None)
