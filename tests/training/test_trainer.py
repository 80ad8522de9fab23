from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from messages import names
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    pipeline,
)

from emdistill import DistillationArguments, DistillationTrainer, Teacher, capture
from emdistill.data.batches import PaddingCollator, tokenise
from emdistill.errors import ConfigError
from emdistill.losses import HardLabels, Objective, SoftTargets
from emdistill.methods import METHODS
from emdistill.models.encoder import encoder_shape
from emdistill.tasks import kind_of_model
from emdistill.training import arguments
from emdistill.training.gradient_norms import gradient_norms

SENTENCES = ("the movie was good", "it is bad and very bad", "a good book", "the book was not very good", "bad")


def examples(labels: list[Any], *, pairs: bool = False, text: str | None = None) -> Dataset:
    """A row a label; every sentence is `text`, or they differ in length."""
    texts = [text or SENTENCES[row % len(SENTENCES)] for row in range(len(labels))]
    columns = {"text": texts, "label": labels}
    return Dataset.from_dict({**columns, "text_pair": texts[::-1]} if pairs else columns)


@pytest.fixture
def new_trainer(
    tmp_path: Path, tiny_encoder: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerBase
) -> Callable[..., DistillationTrainer]:
    """Factory of trainers over a 3-layer teacher and a 2-layer student of half its width."""

    def make(
        data: Dataset,
        *,
        outputs: int = 2,
        method: str = "bert-emd",
        objective: dict[str, Any] | None = None,
        dropout: float = 0.0,
        teacher: Any = None,
        **settings: Any,
    ) -> DistillationTrainer:
        still = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        model = tiny_encoder(layers=3, width=16, heads=2, seed=1, labels=outputs)
        student = tiny_encoder(layers=2, width=8, heads=2, seed=2, labels=outputs, **still)
        torch.manual_seed(0)
        predictions = kind_of_model(None, outputs).predictions
        (stage,) = METHODS[method](
            encoder_shape(student), encoder_shape(model), predictions=predictions, **(objective or {})
        )
        defaults = {"per_device_train_batch_size": 8, "max_steps": 1, "save_strategy": "no", "disable_tqdm": True}
        defaults["teacher_bf16"] = False  # the same numbers whatever the processor
        return DistillationTrainer(
            student,
            teacher=teacher or model,
            objective=stage.objective,
            args=DistillationArguments(
                output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none", **{**defaults, **settings}
            ),
            processing_class=tiny_tokenizer,
            train_dataset=data,
        )

    return make


def rows(data: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    return tokenise(data, tokenizer, 64)


class Watch(TrainerCallback):
    """Calls a function at the end of every step."""

    def __init__(self, look: Callable[[], None]) -> None:
        self.look = look

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.look()


def test_the_teacher_is_frozen_and_in_eval_mode_whatever_the_trainer_does(new_trainer, tiny_tokenizer) -> None:
    trainer = new_trainer(rows(examples([0, 1] * 12), tiny_tokenizer), max_steps=4, learning_rate=1e-2)
    teacher = trainer.teacher.model
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    modes = []
    trainer.add_callback(Watch(lambda: modes.append((teacher.training, trainer.student.training))))
    teacher.train()  # somebody else's doing
    trainer.train()
    assert modes == [(False, True)] * 4
    assert not any(weight.requires_grad or weight.grad is not None for weight in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    optimized = {id(weight) for group in trainer.optimizer.param_groups for weight in group["params"]}
    assert not optimized & {id(weight) for weight in teacher.parameters()}
    assert optimized == {id(weight) for weight in trainer.model.parameters()}


@pytest.mark.parametrize(("steps", "points"), [(3, 3), (12, 12), (130, 65)])
def test_however_short_a_training_is_its_log_has_many_points(new_trainer, tiny_tokenizer, steps, points) -> None:
    data = rows(examples([0, 1]), tiny_tokenizer)
    trainer = new_trainer(data, method="hard-labels", max_steps=steps, per_device_train_batch_size=2)
    trainer.train()
    assert sum("loss" in entry for entry in trainer.state.log_history) == points


def test_logged_terms_sum_to_the_loss_and_norms_are_those_of_autograd(new_trainer, tiny_tokenizer) -> None:
    data = rows(examples([0, 1] * 4), tiny_tokenizer)
    weights = {"beta": 0.5, "theta": 2.0, "embeddings": 3.0, "alpha": 0.7}
    trainer = new_trainer(data, objective=weights, logging_steps=1, gradient_norm_steps=1)
    batch = PaddingCollator(tiny_tokenizer)([{k: v for k, v in row.items() if k != "length"} for row in data])
    objective, student = trainer.objective, trainer.student
    layer_weights = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    with torch.no_grad():
        expected_teacher = capture(trainer.teacher.model, batch, objective.needs)
    expected = {}
    for name in ("attention_scores", "hidden_states", "embeddings", "soft_targets", "hard_labels"):
        student.zero_grad()
        for key, buffer in objective.named_buffers():  # the forward pass moves them
            buffer.copy_(layer_weights[key])
        objective(capture(student.train(), batch, objective.needs), expected_teacher, batch)[1][name].backward()
        squares = [weight.grad.square().sum() for weight in student.parameters() if weight.grad is not None]
        expected[name] = torch.stack(squares).sum().sqrt().item()
    student.zero_grad()
    objective.zero_grad()
    for key, buffer in objective.named_buffers():
        buffer.copy_(layer_weights[key])
    trainer.train()
    log = trainer.state.log_history[0]
    terms = {name.removeprefix("terms/"): value for name, value in log.items() if name.startswith("terms/")}
    assert terms.keys() == expected.keys()
    assert sum(terms.values()) == pytest.approx(log["loss"], rel=1e-4)
    for name, norm in expected.items():
        assert log[f"gradient_norms/{name}"] == pytest.approx(norm, rel=1e-4), name


def test_gradient_norms_of_a_term_without_gradient_are_zero() -> None:
    layer = torch.nn.Linear(2, 1)
    (value,) = layer(torch.ones(1, 2))[0]
    norms = gradient_norms({"constant": torch.tensor(3.0), "linear": 2 * value}, layer)
    assert norms == {"constant": 0.0, "linear": pytest.approx(2 * 3**0.5)}


@pytest.mark.parametrize("method", ["bert-emd", "hard-labels"])
def test_two_batches_accumulated_equal_one_of_twice_the_size(new_trainer, tiny_tokenizer, method: str) -> None:
    """Without dropout and cost attention, on sentences of one length, the two are one sum in another order."""
    data = rows(examples([0, 1] * 16, text="the movie was very good"), tiny_tokenizer)
    fixed = {"cost_attention": "off"} if method == "bert-emd" else {}
    outcomes = []
    for size, accumulation in ((32, 1), (16, 2)):
        trainer = new_trainer(
            data,
            method=method,
            objective=fixed,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            logging_steps=1,
            warmup_steps=0,
        )
        trainer.train()
        log = trainer.state.log_history[0]
        outcomes.append((log["loss"], log["grad_norm"], sum(log[k] for k in log if k.startswith("terms/"))))
    assert outcomes[1] == pytest.approx(outcomes[0], rel=1e-4)
    assert outcomes[0][0] == pytest.approx(outcomes[0][2], rel=1e-4)


def test_it_works_as_a_plain_trainer_and_its_student_stands_alone(tmp_path: Path, tiny_encoder, tiny_tokenizer) -> None:
    """From the readme: a plain model as teacher, save_model() for a plain student."""
    teacher = tiny_encoder(layers=3, width=16, heads=2, seed=1)
    student = tiny_encoder(layers=1, width=8, heads=2, seed=2)
    data = rows(examples([0, 1] * 8), tiny_tokenizer)
    trainer = DistillationTrainer(
        student,
        teacher=teacher,
        objective=Objective([SoftTargets(temperature=2.0), HardLabels()], {"soft_targets": 0.5, "hard_labels": 0.5}),
        args=DistillationArguments(
            output_dir=str(tmp_path / "out"), num_train_epochs=1, report_to="none", use_cpu=True, disable_tqdm=True
        ),
        processing_class=tiny_tokenizer,
        train_dataset=data.remove_columns("length"),
        eval_dataset=data.remove_columns("length"),
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
    )
    trainer.train()
    assert 0 <= trainer.evaluate()["eval_accuracy"] <= 1
    trainer.save_model(str(tmp_path / "student"))
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), trainer.student.parameters(), strict=True))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    (found,) = pipeline("text-classification", model=loaded, tokenizer=tokenizer, device="cpu")(["a good movie"])
    assert found["label"] in loaded.config.label2id


@pytest.mark.parametrize("scored", [3, 11])
def test_rows_that_are_scored_are_never_dropped(new_trainer, tiny_tokenizer, scored: int) -> None:
    """Whatever the training does with its last, smaller batch."""
    trainer = new_trainer(rows(examples([0, 1] * 8), tiny_tokenizer), dataloader_drop_last=True)
    trainer.compute_metrics = lambda found: {"rows": len(found.label_ids)}
    data = rows(examples([0] * scored), tiny_tokenizer)
    assert trainer.evaluate(data.remove_columns("length"))["eval_rows"] == scored
    assert len(trainer.get_train_dataloader()) == 2
    assert trainer.args.dataloader_drop_last


def test_the_exported_student_has_no_trace_of_the_objective(tmp_path: Path, new_trainer, tiny_tokenizer) -> None:
    trainer = new_trainer(rows(examples([0, 1] * 4), tiny_tokenizer))
    trainer.train()
    trainer.save_model(str(tmp_path / "student"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert loaded.state_dict().keys() == trainer.student.state_dict().keys()
    files = {path.name for path in (tmp_path / "student").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pkl"))}


def test_evaluation_needs_neither_teacher_nor_lengths_and_leaves_layer_weights(new_trainer, tiny_tokenizer) -> None:
    data = rows(examples([0, 1] * 4), tiny_tokenizer)
    trainer = new_trainer(data)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.teacher = None
    with_length = trainer.predict(data)
    without = trainer.predict(data.remove_columns("length"))
    assert np.array_equal(with_length.predictions, without.predictions)
    assert with_length.label_ids.tolist() == [0, 1] * 4
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize(
    ("labels", "outputs", "pairs"),
    [([0.0, 2.5, 5.0, 1.0] * 2, 1, False), (list(range(20)), 20, False), ([0, 1, 2] * 4, 3, True)],
    ids=["a score", "many classes", "pairs"],
)
def test_every_kind_of_task_trains(new_trainer, tiny_tokenizer, labels: list[Any], outputs: int, pairs: bool) -> None:
    data = rows(examples(labels, pairs=pairs), tiny_tokenizer)
    trainer = new_trainer(data, outputs=outputs, objective={"alpha": 0.5}, num_train_epochs=2, max_steps=-1)
    before = [weight.clone() for weight in trainer.student.parameters()]
    trainer.train()
    assert np.isfinite(trainer.state.log_history[-1]["train_loss"])
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.student.parameters(), strict=True))
    assert trainer.predict(data).predictions.shape == (len(labels), outputs)


def test_hard_labels_need_no_teacher_and_others_say_that_they_do(tmp_path: Path, tiny_encoder, tiny_tokenizer) -> None:
    arguments = DistillationArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", max_steps=1, disable_tqdm=True
    )
    shared = {"args": arguments, "processing_class": tiny_tokenizer}
    data = rows(examples([0, 1] * 4), tiny_tokenizer)
    hard = Objective([HardLabels()], {"hard_labels": 1.0})
    DistillationTrainer(tiny_encoder(), objective=hard, train_dataset=data, **shared).train()
    with names(ConfigError, "1·soft_targets", "teacher="):
        DistillationTrainer(tiny_encoder(), objective=Objective([SoftTargets()], {"soft_targets": 1.0}), **shared)


def test_a_teacher_may_come_as_a_teacher(new_trainer, tiny_encoder, tiny_tokenizer) -> None:
    teacher = Teacher(tiny_encoder(layers=3, width=16, heads=2, seed=1))
    trainer = new_trainer(rows(examples([0, 1] * 4), tiny_tokenizer), teacher=teacher)
    assert trainer.teacher is teacher
    trainer.train()


def test_other_sampling_strategies_of_transformers_still_work(new_trainer, tiny_tokenizer) -> None:
    data = rows(examples([0, 1] * 4), tiny_tokenizer)
    trainer = new_trainer(data, train_sampling_strategy="random", num_train_epochs=1, max_steps=-1)
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("instructions", [False, True], ids=["without bf16 instructions", "with"])
@pytest.mark.parametrize(
    ("student", "teacher_bf16", "expected"),
    [
        ({}, None, None),  # what the processor has
        ({}, True, torch.bfloat16),
        ({}, False, torch.float32),
        ({"bf16": True}, None, torch.bfloat16),
        ({"bf16": True}, True, torch.bfloat16),
        ({"bf16": True}, False, torch.float32),
        ({"fp16": True}, None, torch.float16),
        ({"fp16": True}, True, torch.bfloat16),
        ({"fp16": True}, False, torch.float32),
    ],
)
def test_the_teachers_precision(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    student: dict[str, bool],
    teacher_bf16: bool | None,
    expected: torch.dtype | None,
    instructions: bool,
) -> None:
    monkeypatch.setattr(arguments, "has_bfloat16", lambda device: instructions)
    found = DistillationArguments(str(tmp_path), use_cpu=True, report_to="none", teacher_bf16=teacher_bf16, **student)
    assert found.teacher_dtype == (expected or (torch.bfloat16 if instructions else torch.float32))


def test_a_plain_models_teacher_computes_in_the_precision_asked_for(new_trainer, tiny_tokenizer) -> None:
    data = rows(examples([0, 1] * 4), tiny_tokenizer)
    for wanted, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        assert new_trainer(data, teacher_bf16=wanted).teacher.dtype == dtype


def test_a_teacher_in_bfloat16_says_nearly_the_same(tiny_encoder, tiny_tokenizer) -> None:
    model = tiny_encoder(layers=3, width=16, heads=2, seed=1)
    batch = tiny_tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    needs = {"hidden", "attention", "embeddings"}
    exact, rough = (Teacher(model, dtype=dtype)(batch, needs) for dtype in (torch.float32, torch.bfloat16))
    token = batch["attention_mask"].bool()
    places = [(slice(None), exact.logits, rough.logits), (token, exact.embeddings, rough.embeddings)]
    places += [(token, *layers) for layers in zip(exact.hidden, rough.hidden, strict=True)]
    pairs = (token[:, :, None] & token[:, None, :])[:, None].expand(-1, 2, -1, -1)
    places += [(pairs, *layers) for layers in zip(exact.attention_scores, rough.attention_scores, strict=True)]
    for place, one, other in places:
        assert not other.requires_grad
        error = (one[place] - other[place].float()).norm() / one[place].norm()
        assert error < 0.02
    assert not torch.equal(exact.logits, rough.logits.float())


def test_a_student_learns_nearly_the_same_from_a_teacher_in_bfloat16(new_trainer, tiny_tokenizer) -> None:
    losses = []
    for wanted in (False, True):
        trainer = new_trainer(rows(examples([0, 1] * 4), tiny_tokenizer), teacher_bf16=wanted, logging_steps=1)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
        assert all(weight.dtype is torch.float32 for weight in trainer.student.parameters())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # the name until transformers 5.23
@pytest.mark.parametrize("method", ["bert-emd", "balanced", "minilm"])
def test_gradient_checkpointing_changes_nothing(new_trainer, tiny_tokenizer, method: str) -> None:
    """Every layer is computed twice, dropout and all, and the student is the same."""
    data = rows(examples([0, 1] * 8), tiny_tokenizer)
    logs = []
    for checkpointing in (False, True):
        trainer = new_trainer(
            data, method=method, dropout=0.1, max_steps=3, logging_steps=1, gradient_checkpointing=checkpointing
        )
        trainer.train()
        logs.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(logs[0]) == 3
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)


def test_token_budgets_are_for_one_process(new_trainer, tiny_tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = new_trainer(rows(examples([0, 1] * 4), tiny_tokenizer), tokens_per_batch=100)
    monkeypatch.setattr(DistillationArguments, "world_size", 2)
    with names(ConfigError, "--training.tokens_per_batch"):
        trainer.get_train_dataloader()


def test_examples_without_counted_lengths_train_by_token_budget(new_trainer, tiny_tokenizer) -> None:
    data = rows(examples([0, 1] * 8), tiny_tokenizer)
    students = []
    for given in (data, data.remove_columns("length")):
        trainer = new_trainer(given, tokens_per_batch=24, num_train_epochs=1, max_steps=-1)
        trainer.train()
        assert trainer.state.global_step > 2
        students.append(trainer.student)
    for one, other in zip(*(student.parameters() for student in students), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("asked", [True, False])
def test_compiled_costs_are_as_asked_for(new_trainer, tiny_tokenizer, asked: bool) -> None:
    trainer = new_trainer(rows(examples([0, 1] * 4), tiny_tokenizer), compile_costs=asked)
    assert [loss.compiled for loss in trainer.objective.layer_losses()] == [asked]


def test_costs_are_compiled_where_training_is_long_enough(new_trainer, tiny_tokenizer) -> None:
    data = rows(examples([0, 1] * 4), tiny_tokenizer)
    for steps, expected in ((10, False), (10**9, True)):
        (loss,) = new_trainer(data, max_steps=steps).objective.layer_losses()
        assert loss.compiled is expected
