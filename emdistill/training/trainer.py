"""DistillationTrainer: a transformers.Trainer whose loss is an Objective over student and teacher states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import EarlyStoppingCallback, EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.trainer_utils import get_last_checkpoint

from emdistill.data.batches import LengthGroupedSampler, padding_collator
from emdistill.errors import ConfigError, TrainingError
from emdistill.losses import Objective
from emdistill.models.capture import capture
from emdistill.models.encoder import save_student
from emdistill.models.teacher import Teacher
from emdistill.states import EncoderStates
from emdistill.training.arguments import DistillationArguments

ComputeMetrics = Callable[[EvalPrediction], dict[str, float]]


class StudentWithObjective(nn.Module):
    """What is trained and checkpointed together: the student, and what its objective learns (projections, weights)."""

    def __init__(self, student: PreTrainedModel, objective: Objective) -> None:
        super().__init__()
        self.student = student
        self.objective = objective

    def forward(self, batch: dict[str, Tensor], teacher: EncoderStates | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss and its weighted terms; `teacher` may be absent where no loss reads it."""
        states = capture(self.student, batch, self.objective.needs)
        total, terms = self.objective(states, states if teacher is None else teacher, batch)
        return total, terms


class DistillationTrainer(Trainer):
    """Trains `model` (the student) on `objective` under `teacher`.

    model          the student, a plain transformers encoder with a head; `trainer.student` afterwards
    teacher        a Teacher, or a model that becomes one; None where the objective reads labels only
    objective      the losses; what they learn is in the optimizer and in every checkpoint
    train_dataset  tokenised: input_ids, attention_mask, labels (data/batches.py)
    The rest is transformers.Trainer's. `save_model()` writes the plain student.
    Raises TrainingError, naming step and term, when a loss is NaN or infinite.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        objective: Objective,
        args: DistillationArguments,
        processing_class: PreTrainedTokenizerBase,
        teacher: Teacher | PreTrainedModel | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        compute_metrics: ComputeMetrics | None = None,
        **options: Any,
    ) -> None:
        if objective.taught and teacher is None:
            raise ConfigError(f"the objective {objective} reads a teacher: pass teacher=")
        # The objective's losses take whole batches as dicts; nothing may be dropped by signature.
        args.remove_unused_columns = False
        args.label_names = ["labels"]
        # One process a GPU: nn.DataParallel would copy the layer weights and lose their updates.
        args._n_gpu = min(args.n_gpu, 1)
        options.setdefault("data_collator", padding_collator(processing_class))
        super().__init__(
            model=StudentWithObjective(model, objective),
            args=args,
            train_dataset=_model_inputs(train_dataset),
            eval_dataset=_model_inputs(eval_dataset),
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            **options,
        )
        self.model_accepts_loss_kwargs = False
        self.args: DistillationArguments = args
        self.tokenizer = processing_class
        self.student = model
        self.objective: Objective = objective
        self.teacher = Teacher(teacher) if isinstance(teacher, nn.Module) else teacher
        if self.teacher is not None:
            self.teacher.to(args.device)
        self._lengths = [] if train_dataset is None else _lengths(train_dataset)
        self._term_sums: dict[str, Tensor] = {}
        self._term_steps = 0
        self._gradient_norms: dict[str, float] = {}
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """One teacher pass without gradient, one student pass, the objective."""
        step = self.state.global_step + 1
        teacher = None
        if self.teacher is not None and self.objective.taught:
            with self.accelerator.autocast():
                teacher = self.teacher(inputs, self.objective.needs)
        try:
            total, terms = model(inputs, teacher)
        except TrainingError as error:
            raise TrainingError(f"step {step}: {error}; {self._last_good_checkpoint()}") from None
        self._check_finite(step, total, terms)
        self._note_terms(terms)
        return total  # type: ignore[no-any-return]

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor | None]:
        """The student's logits alone: evaluation needs neither teacher nor objective."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels", None)
        with torch.no_grad():
            logits = capture(self.student, inputs, ()).logits
        return None, logits.float(), labels

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each weighted term's mean since the last log, and its last gradient norm, to training logs."""
        if "loss" in logs and self._term_steps:
            logs |= {f"terms/{name}": (value / self._term_steps).item() for name, value in self._term_sums.items()}
            logs |= {f"gradient_norms/{name}": value for name, value in self._gradient_norms.items()}
            self._term_sums, self._term_steps, self._gradient_norms = {}, 0, {}
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The plain student and its tokenizer; a checkpoint (internal call) holds the objective's state too."""
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
        elif self.is_world_process_zero():
            save_student(self.student, self.tokenizer, output_dir or self.args.output_dir or "student")

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        # transformers' own grouping draws from the global generator: an epoch resumed half-way would be reordered.
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        return LengthGroupedSampler(self._lengths, self.args.train_batch_size, self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int] | None:
        # transformers would group these by length too: predictions in another order than the examples.
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def _check_finite(self, step: int, total: Tensor, terms: Mapping[str, Tensor]) -> None:
        if torch.isfinite(total):
            return
        wrong = [name for name, value in terms.items() if not torch.isfinite(value)] or list(terms)
        raise TrainingError(
            f"step {step}: the loss term {', '.join(wrong)} is NaN or infinite; {self._last_good_checkpoint()}. "
            "Lower --training.learning_rate or that term's weight."
        )

    def _last_good_checkpoint(self) -> str:
        kept = self.state.best_model_checkpoint or get_last_checkpoint(self.args.output_dir)  # type: ignore[no-untyped-call]
        return f"the last good checkpoint is kept: {kept}" if kept else "no checkpoint was written before it"

    def _note_terms(self, terms: Mapping[str, Tensor]) -> None:
        for name, value in terms.items():
            self._term_sums[name] = self._term_sums.get(name, 0.0) + value.detach()
        self._term_steps += 1
        every = self.args.gradient_norm_steps
        if every and self.state.global_step % every == 0 and not self._gradient_norms:
            self._gradient_norms = gradient_norms(terms, self.student)


def gradient_norms(terms: Mapping[str, Tensor], student: nn.Module) -> dict[str, float]:
    """‖∂(weight · term)/∂θ‖₂ over the student's weights, one a term: what to balance weights by."""
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    norms = {}
    for name, term in terms.items():
        if not term.requires_grad:
            norms[name] = 0.0
            continue
        gradients = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
        norms[name] = torch.stack([g.float().norm() for g in gradients if g is not None]).norm().item()
    return norms


def _lengths(dataset: Dataset) -> list[int]:
    """Tokens an example, whether they are counted already or not."""
    return list(dataset["length"]) if "length" in dataset.column_names else [len(ids) for ids in dataset["input_ids"]]


def _model_inputs(dataset: Dataset | dict[str, Dataset] | None) -> Dataset | dict[str, Dataset] | None:
    if isinstance(dataset, dict):
        return {name: _model_inputs(part) for name, part in dataset.items()}
    if dataset is None or "length" not in dataset.column_names:
        return dataset
    return dataset.remove_columns("length")


def metrics_from(score: Callable[[np.ndarray, np.ndarray], dict[str, float]]) -> ComputeMetrics:
    """A Trainer's compute_metrics from score(logits, labels)."""
    return lambda prediction: score(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))
