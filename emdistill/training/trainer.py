"""DistillationTrainer: a transformers.Trainer whose loss is an Objective over student and teacher states."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase, Trainer, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, rotate_checkpoints

from emdistill.data.batches import LengthGroupedSampler, PaddingCollator, TokenBudgetSampler, lengths_of
from emdistill.data.mixed_batches import batches_in_order
from emdistill.errors import ConfigError, TrainingError
from emdistill.files import MANIFEST, damage, seal, storage_errors
from emdistill.losses import LayerLoss, Objective
from emdistill.models.arithmetic import fast_float32
from emdistill.models.capture import capture
from emdistill.models.encoder import save_student
from emdistill.models.teacher import OwnAnswers, Teacher, TeacherSource
from emdistill.processes import wait_for_all
from emdistill.states import ANSWERS, NO_ANSWER, NO_CLASS, TASK, EncoderStates
from emdistill.training.arguments import DistillationArguments
from emdistill.training.finite_checks import FiniteChecks, NotFinite, bad_rows, of_rows
from emdistill.training.gradient_norms import gradient_norms
from emdistill.training.learning_rates import parameters_below, slow_down

# Differences from which on compiled layer costs save more than the half minute that compiling them may take.
EARNS_COMPILATION = 1e11


MOST_SKIPPED_IN_A_ROW = 10  # then it is not the batches


class StudentWithObjective(nn.Module):
    """What is trained and checkpointed together: the student, and what its objective learns (projections, weights)."""

    def __init__(self, student: PreTrainedModel, objective: Objective) -> None:
        super().__init__()
        self.student = student
        self.objective = objective
        self.register_state_dict_post_hook(_leave_out_second_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_miss_no_second_names)  # type: ignore[no-untyped-call]

    def forward(
        self,
        batch: dict[str, Tensor],
        teacher: EncoderStates | None,
        meanwhile: Callable[[], object] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss and its weighted terms; `teacher` may be absent where no loss reads it."""
        objective = self.objective.of(batch)
        states = capture(self.student, batch, objective.student_needs, objective.student_layers)
        norms = partial(gradient_norms, student=self.student)
        total, terms = self.objective(states, states if teacher is None else teacher, batch, meanwhile, norms)
        return total, terms

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """The student's: transformers' Trainer calls it here."""
        self.student.activation_checkpointing_enable(**options)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """The same, under the name of earlier versions of transformers."""
        self.student.gradient_checkpointing_enable(**options)  # type: ignore[no-untyped-call]


def _second_names(module: nn.Module) -> list[str]:
    """The names under which a tied weight (a masked-LM's decoder) is met again."""
    first = {id(weight): name for name, weight in module.named_parameters()}
    return [name for name, weight in module.named_parameters(remove_duplicate=False) if first[id(weight)] != name]


def _leave_out_second_names(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """safetensors writes no tensor twice."""
    for name in _second_names(module):
        state.pop(prefix + name, None)


def _miss_no_second_names(module: nn.Module, incompatible: Any) -> None:
    for name in {*_second_names(module)} & {*incompatible.missing_keys}:
        incompatible.missing_keys.remove(name)


class DistillationTrainer(Trainer):
    """Trains `model` (the student) on `objective` under `teacher`.

    model          the student, a plain transformers encoder with a head; `trainer.student` afterwards
    teacher        a Teacher, a TeacherCache of the train_dataset, or a model that becomes a Teacher; None where the
                   objective reads labels only
    objective      the losses; what they learn is in the optimizer and in every checkpoint
    train_dataset  tokenised: input_ids, attention_mask, labels (data/batches.py)
    batches        (batch size, seed) -> the batches of train_dataset; None: as the arguments say
    slow_below     the layers below this one, and the embeddings, learn slowly (learning_rates.py)
    The rest is transformers.Trainer's. `save_model()` writes the plain student.
    On an accelerator the next batch's teacher pass is queued before the flows of this one are waited for, and whether
    numbers are finite is looked up one step later; before an evaluation, a checkpoint and the end it is always known.
    Raises TrainingError, naming step, term and texts, when a loss or a gradient is NaN or infinite; with
    skip_bad_batches such batches are left out and counted, up to ten in a row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        objective: Objective,
        args: DistillationArguments,
        processing_class: PreTrainedTokenizerBase,
        teacher: TeacherSource | PreTrainedModel | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        batches: Callable[[int, int], Sampler[list[int]]] | None = None,
        slow_below: int = 0,
        **options: Any,
    ) -> None:
        if objective.taught and teacher is None:
            raise ConfigError(f"the objective {objective} reads a teacher: pass teacher=")
        rows: Any = _model_inputs(train_dataset)
        if getattr(teacher, "reads_rows", False) and rows is not None:  # it finds an example's outputs by its number
            rows = rows.add_column("row", np.arange(len(rows), dtype=np.int32))
        # The objective's losses take whole batches as dicts; nothing may be dropped by signature.
        args.remove_unused_columns = False
        args.label_names = ["labels"]
        # One process per GPU: nn.DataParallel would copy the layer weights and lose their updates.
        args._n_gpu = min(args.n_gpu, 1)
        options.setdefault("data_collator", PaddingCollator(processing_class))
        super().__init__(
            model=StudentWithObjective(model, objective),
            args=args,
            train_dataset=rows,
            eval_dataset=_model_inputs(eval_dataset),
            processing_class=processing_class,
            **options,
        )
        self.model_accepts_loss_kwargs = False
        self.args: DistillationArguments = args
        self.tokenizer = processing_class
        self.student = model
        self.objective: Objective = objective
        self.teacher: TeacherSource | None = (
            Teacher(teacher, dtype=args.teacher_dtype) if isinstance(teacher, PreTrainedModel) else teacher
        )
        if isinstance(self.teacher, Teacher):
            self.teacher.to(args.device)
        self._batches = batches
        self._slow_below = slow_below
        self._asynchronous = args.device.type != "cpu"
        self._coming: deque[dict[str, Tensor]] = deque()
        self._fetched_from: Iterator[dict[str, Tensor]] | None = None
        self._taught: tuple[Tensor, EncoderStates] | None = None
        self._finite = FiniteChecks(delayed=self._asynchronous and not args.skip_bad_batches)
        self._skipped = self._skipped_in_a_row = 0
        self._has_loss = False  # whether a batch of the update under way was not left out
        self._lengths = np.empty(0, np.int32) if train_dataset is None else lengths_of(train_dataset)
        self._sampler: LengthGroupedSampler | None = None
        for loss in objective.layer_losses():
            differences = self._differences(loss)
            loss.compiled = differences > EARNS_COMPILATION if args.compile_costs is None else args.compile_costs
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
        if self._coming:
            self._coming.popleft()
        teacher = self._teach(inputs)
        self.objective.begin_step(self.state.global_step, max(1, self.state.max_steps))
        try:
            total, terms = model(inputs, teacher, self._teach_ahead if self._asynchronous else None)
            fault = self._finite.note(self.state.global_step + 1, _terms(terms))
        except TrainingError as error:
            self._refuse(self._finite.settle())
            fault = NotFinite(self.state.global_step + 1, str(error))
        if fault is not None:
            self._skip_or_refuse(fault, partial(self._rows_at_fault, inputs, teacher))
            return torch.zeros((), device=self.args.device, requires_grad=True)  # from it no weight gets a gradient
        self._has_loss = True
        self._note_terms(terms)
        return total  # type: ignore[no-any-return]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As transformers.Trainer's, once; then some layers learn slowly."""
        begun = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if not begun:
            slow_down(optimizer, parameters_below(self.student, self._slow_below))
        return optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | int | None]:
        """The batches of one update; on an accelerator the batch after them is fetched as well, to be taught ahead."""
        if not self._asynchronous:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        fetched = list(self._coming) if epoch_iterator is self._fetched_from else []
        batches = chain(fetched, epoch_iterator)
        samples, items = super().get_batch_samples(batches, num_batches, device)
        self._coming, self._fetched_from = deque([*samples, *islice(batches, 1)]), epoch_iterator
        return samples, items

    def _teach(self, inputs: Mapping[str, Tensor]) -> EncoderStates | None:
        """The teacher's states of a batch, which may have been computed ahead."""
        if self.teacher is None or not self.objective.taught:
            return None
        taught, self._taught = self._taught, None
        if taught is not None and taught[0] is inputs["input_ids"]:
            return taught[1]
        objective = self.objective.of(inputs)
        return self.teacher(inputs, objective.needs, objective.teacher_layers)

    def _teach_ahead(self) -> None:
        """Queue the teacher's pass over the batch to come."""
        if self._coming and not isinstance(self.teacher, OwnAnswers):  # whose weights are about to change
            inputs = self._prepare_inputs(self._coming[0])
            states = self._teach(inputs)
            self._taught = None if states is None else (inputs["input_ids"], states)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | None = None) -> Tensor | float:
        # Asked for at every step, whether gradients are clipped or not.
        norm: Tensor | float = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        # In float16 an infinite gradient only lowers the loss scale.
        fault = None
        if not self.args.fp16:
            fault = self._finite.note(self.state.global_step + 1, {"the gradient": torch.as_tensor(norm)})
        if fault is not None:
            self._skip_or_refuse(fault)
            model.zero_grad(set_to_none=True)  # the optimizer passes over weights without a gradient
        elif self._has_loss:
            self._skipped_in_a_row = 0
        self._has_loss = False
        return norm

    def train(self, *args: Any, **options: Any) -> Any:
        """As transformers.Trainer's; all that was noted of the last step is known when it returns."""
        with fast_float32():
            output = super().train(*args, **options)
        self._refuse(self._finite.settle())
        return output

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """As transformers.Trainer's, of a student that is known to be finite."""
        self._refuse(self._finite.settle())
        return super().evaluate(*args, **options)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As transformers.Trainer's, sealed; only then do older ones go."""
        self._refuse(self._finite.settle())
        folder = Path(str(self.args.output_dir))
        checkpoint = folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        kept, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with storage_errors(checkpoint):
                (checkpoint / MANIFEST).unlink(missing_ok=True)  # of one that is written anew
                super()._save_checkpoint(model, trial)
                wait_for_all()  # each process writes the state of its random generators
                if self.is_world_process_zero():
                    seal(checkpoint)
        finally:
            self.args.save_total_limit = kept
        if self.is_world_process_zero():
            rotate_checkpoints(str(folder), kept, self.state.best_model_checkpoint)
        wait_for_all()  # who stops after this checkpoint ends the others

    def _load_best_model(self) -> None:
        best = Path(self.state.best_model_checkpoint or "")
        if fault := damage(best):
            raise TrainingError(f"the best checkpoint, {best}, is lost: {fault}; --resume learns it again")
        super()._load_best_model()

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
        logits = per_row(logits.float(), inputs)
        return None, logits.flatten(1) if TASK in inputs else logits, labels  # of several tasks, widths differ

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each weighted term's mean since the last log, and its last gradient norm, to training logs."""
        if "loss" in logs and self._term_steps:
            logs |= {f"terms/{name}": (value / self._term_steps).item() for name, value in self._term_sums.items()}
            logs |= {f"gradient_norms/{name}": value for name, value in self._gradient_norms.items()}
            self._term_sums, self._term_steps, self._gradient_norms = {}, 0, {}
        if self._skipped:
            logs |= {"skipped_batches": self._skipped}
            self._skipped = 0
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The plain student and its tokenizer; a checkpoint (internal call) holds the objective's state too."""
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
        elif self.is_world_process_zero():
            save_student(self.student, self.tokenizer, output_dir or self.args.output_dir or "student")

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of a number of sentences, or of a number of tokens, or of one task each."""
        if self.train_dataset is None or not (self.args.tokens_per_batch or self._batches):
            return super().get_train_dataloader()
        if self.args.world_size > 1:
            raise ConfigError(
                "--training.tokens_per_batch works in one process only; set per_device_train_batch_size"
                if self._batches is None
                else "several tasks are learned in one process only"
            )
        sampler: Sampler[list[int]]
        if self._batches is None:
            sampler = TokenBudgetSampler(self._lengths, self.args.tokens_per_batch, self.args.seed)
        else:
            sampler = self._batches(self.args.per_device_train_batch_size, self.args.seed)
        return self._loader(self.train_dataset, sampler)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Batches of one task each, where there are several."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(rows, Dataset) or TASK not in rows.column_names:
            given, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False  # that is of training
            try:
                return super().get_eval_dataloader(eval_dataset)
            finally:
                self.args.dataloader_drop_last = given
        return self._loader(rows, batches_in_order(rows[TASK][:], self.args.per_device_eval_batch_size))

    def _loader(self, rows: Any, batches: Any) -> DataLoader[Any]:
        loader = DataLoader(
            rows,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def _run_epoch(self, model: Any, epoch: int, *args: Any, **options: Any) -> Any:
        # Resumed from where it ended within an epoch, by max_steps or early, transformers would train on.
        if self._had_ended():
            self.control.should_training_stop = True
            return None
        # accelerate tells a sampler its epoch, but not in an epoch that several processes resume half-way.
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)
        return super()._run_epoch(model, epoch, *args, **options)  # type: ignore[no-untyped-call]

    def _had_ended(self) -> bool:
        """Whether training was to stop when the checkpoint that this one goes on from was written."""
        saved: Any = self.state.stateful_callbacks  # by the names of their classes
        return bool(saved.get("TrainerControl", {}).get("args", {}).get("should_training_stop"))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """As transformers.Trainer's; of a process that the checkpoint does not know, by the seed and the step."""
        set_seed(self.args.seed + self.state.global_step)
        super()._load_rng_state(checkpoint)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        # transformers' own grouping draws from the global generator: an epoch resumed half-way would be reordered.
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        # Of several processes each takes its part of what one of them would read at once.
        # A resumed run may have another number of them, or of gradients accumulated: rows of one update stay together.
        self._sampler = LengthGroupedSampler(self._lengths, self.args.rows_per_step, self.args.seed)
        return self._sampler

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int] | None:
        # transformers would group these by length too: predictions in another order than the examples.
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def _refuse(self, fault: NotFinite | None) -> None:
        if fault is not None:
            raise self._not_finite(fault.step, fault.name)

    def _skip_or_refuse(self, fault: NotFinite, rows: Callable[[], str] = str) -> None:
        """Count a batch that is left out, where that is asked for and not the rule by now; else refuse to go on."""
        self._skipped += 1
        self._skipped_in_a_row += 1
        if not self.args.skip_bad_batches or self._skipped_in_a_row > MOST_SKIPPED_IN_A_ROW:
            # Delayed, the batch at fault is not this one any more.
            raise self._not_finite(fault.step, fault.name + ("" if self._finite.delayed else rows()))

    def _rows_at_fault(self, inputs: dict[str, Tensor], teacher: EncoderStates | None) -> str:
        """Whose states of a batch are not finite, the teacher's or the student's, and the texts of those rows."""
        with torch.no_grad():
            student = capture(self.student, inputs, self.objective.of(inputs).student_needs)
        for whose, states in {"teacher": teacher, "student": student}.items():
            if states is not None and (rows := bad_rows(states)):
                ids = inputs["input_ids"][rows].tolist()
                return of_rows(whose, [str(self.tokenizer.decode(one, skip_special_tokens=True)) for one in ids])
        return ""

    def _not_finite(self, step: int, fault: str) -> TrainingError:
        last = self.state.best_model_checkpoint or get_last_checkpoint(self.args.output_dir)  # type: ignore[no-untyped-call]
        checkpoint = f"the last good checkpoint is kept: {last}" if last else "no checkpoint was written before it"
        return TrainingError(
            f"step {step}: {fault}; {checkpoint}. Lower --training.learning_rate or the weight of that term, or leave "
            "out such batches: --training.skip_bad_batches"
        )

    def _differences(self, loss: LayerLoss) -> float:
        """How many differences of two numbers the layer costs of the whole training take, roughly."""
        if self.teacher is None or not len(self._lengths):
            return 0.0
        teacher, mapping = self.teacher.shape, loss.mapping
        every = mapping.student_layers * mapping.teacher_layers
        pairs = every if mapping.pairs is None else len(mapping.pairs)
        tokens, squares = (int(np.power(self._lengths, power, dtype=np.int64).sum()) for power in (1, 2))
        states = tokens * teacher.width if "hidden" in loss.needs else 0
        scores = squares * teacher.heads if "attention" in loss.needs else 0
        steps = self.args.max_steps * self.args.train_batch_size / len(self._lengths)
        epochs = steps if self.args.max_steps > 0 else self.args.num_train_epochs
        return float(pairs * (states + scores) * epochs)

    def _note_terms(self, terms: Mapping[str, Tensor]) -> None:
        for name, value in terms.items():
            self._term_sums[name] = self._term_sums.get(name, 0.0) + value.detach()
        self._term_steps += 1
        every = self.args.gradient_norm_steps
        if every and self.state.global_step % every == 0 and not self._gradient_norms:
            self._gradient_norms = gradient_norms(terms, self.student)


def _terms(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"the loss term {name}": value for name, value in terms.items()}


def per_row(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The logits [A, C] of a batch as [B, A', C], padded, where rows have several answers: as processes join them."""
    if ANSWERS not in batch:
        return logits
    there = batch[ANSWERS] != NO_ANSWER
    padded = logits.new_full((*there.shape, logits.shape[-1]), NO_CLASS)
    padded[there] = logits
    return padded


def _model_inputs(dataset: Dataset | dict[str, Dataset] | None) -> Dataset | dict[str, Dataset] | None:
    if isinstance(dataset, dict):
        return {name: _model_inputs(part) for name, part in dataset.items()}
    if dataset is None or "length" not in dataset.column_names:
        return dataset
    return dataset.remove_columns("length")
