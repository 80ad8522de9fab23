"""How training runs: transformers' TrainingArguments with this project's defaults and seven more."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

from emdistill.errors import ConfigError
from emdistill.models.arithmetic import has_bfloat16
from emdistill.stopping import ended_by_signals

# What decides how long a student learns, and from how much: one for all that is compared, but for learning rates.
BUDGET = (
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "tokens_per_batch",
    "early_stopping_patience",
)
# For a short training of which nothing is kept but its scores.
LEAN = {"save_strategy": "no", "flow_steps": 0, "gradient_norm_steps": 0, "disable_tqdm": True}


@dataclass
class DistillationArguments(TrainingArguments):
    """TrainingArguments for distillation; every argument of transformers' own is there too.

    gradient_norm_steps      log each term's gradient norm over the student's weights every so many optimizer
                             steps (each costs one more backward pass per term); 0 = never
    flow_steps               record flows and layer weights every so many optimizer steps; 0 = never
    early_stopping_patience  stop after so many evaluations without a better metric; None = never, nor with
                             --select last, where nothing is scored
    tokens_per_batch         batches of sentences of like length, as many as keep sentences × longest within it,
                             instead of per_device_train_batch_size; 0 = off
    compile_costs            layer costs by compiled kernels; None = where a run is long enough to earn back the
                             seconds of compilation
    teacher_bf16             the teacher's matrix products in bfloat16; None = where the processor has instructions for
                             them, or the student's are too (bf16)
    skip_bad_batches         leave out a batch whose loss or gradient is NaN or infinite, and count it in the log
                             (skipped_batches), instead of stopping; after ten in a row the training stops all the same
    """

    per_device_train_batch_size: int = field(default=32)
    per_device_eval_batch_size: int = field(default=64)
    learning_rate: float = field(default=5e-5)
    warmup_steps: float = field(default=0.1)
    weight_decay: float = field(default=0.01)
    logging_steps: float = field(default=0.01)  # of a stage's steps: short runs have a chart too
    train_sampling_strategy: str = field(default="group_by_length")
    dataloader_pin_memory: bool = field(default=False)
    logging_nan_inf_filter: bool = field(default=False)  # it waits for the device at every step; the trainer checks
    gradient_norm_steps: int = field(default=200)
    flow_steps: int = field(default=20)
    early_stopping_patience: int | None = field(default=None)
    tokens_per_batch: int = field(default=0)
    compile_costs: bool | None = field(default=None)
    teacher_bf16: bool | None = field(default=None)
    skip_bad_batches: bool = field(default=False)

    def __post_init__(self) -> None:
        with ended_by_signals():  # the processes of a training meet here, and one may wait for another that has failed
            super().__post_init__()  # type: ignore[no-untyped-call]
        if self.fsdp and self.device.type == "cpu":  # transformers would pass over it without a word
            raise ConfigError(
                "--training.fsdp shards over accelerators, and this is a CPU; leave it out: torchrun alone"
            )
        if self.skip_bad_batches and self.world_size > 1:  # the others would wait for gradients that never come
            raise ConfigError("--training.skip_bad_batches works in one process only; leave it out under torchrun")

    @property
    def rows_per_step(self) -> int:
        """Rows per update of the student, of all processes together."""
        return int(self.train_batch_size * self.world_size * self.gradient_accumulation_steps)

    @property
    def emulates_bfloat16(self) -> bool:
        """Whether bfloat16 is asked for where the processor has no instructions for it."""
        asked = self.bf16 or bool(self.teacher_bf16)
        return asked and self.device.type == "cpu" and not has_bfloat16(self.device)

    @property
    def leaves_bfloat16_out(self) -> bool:
        """Whether the student's products are in float32 where there are instructions for bfloat16."""
        return not (self.bf16 or self.fp16) and has_bfloat16(self.device)

    @property
    def teacher_dtype(self) -> torch.dtype:
        """What the teacher computes in."""
        if self.teacher_bf16 is None and self.fp16:
            return torch.float16
        bfloat16 = self.bf16 or has_bfloat16(self.device) if self.teacher_bf16 is None else self.teacher_bf16
        return torch.bfloat16 if bfloat16 else torch.float32
