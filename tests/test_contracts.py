"""What every method, mapping, student, loss and task promises, tested once for all that stand in the tables.

A new row in METHODS, MAPPINGS, STUDENTS or TASKS, and a new loss in emdistill.losses, is covered without a change here.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import emdistill.losses as losses
from emdistill.data import TASKS
from emdistill.data.batches import tokenise
from emdistill.losses import LayerLoss, Loss
from emdistill.mapping import MAPPINGS
from emdistill.methods import METHODS
from emdistill.models import Teacher, encoder_shape, fingerprint, name_outputs, save_student
from emdistill.states import EncoderStates
from emdistill.students import STUDENTS, make_student
from emdistill.tasks.metrics import METRICS, chance, score
from emdistill.tasks.task import Task
from emdistill.training import DistillationTrainer, Stage
from emdistill.training.run_stages import stage_arguments

# The three things a model can be asked for, as label names: a score has none.
KINDS = {"regression": (), "2 classes": ("no", "yes"), "many classes": tuple("abcdefg")}
NEEDS = {"embeddings": "embeddings", "hidden": "hidden", "attention": "attention_scores"}
NEEDS |= {name: name for name in ("queries", "keys", "values")}
TEXTS = ("the movie was good", "a bad book", "it is not very good and it was not the book", "a movie")


# --- losses -------------------------------------------------------------------------------------------------------


def is_costs(part: type) -> bool:
    return isinstance(vars(part).get("needs"), frozenset) and not issubclass(part, Loss)


def loss_names() -> list[str]:
    """Every published loss but the bases, and every kind of costs with every mapping: HiddenStateCosts+emd."""
    parts = {name: vars(losses)[name] for name in losses.__all__}
    plain = [name for name, part in parts.items() if issubclass(part, Loss) and part not in (Loss, LayerLoss)]
    return plain + [f"{name}+{mapping}" for name, part in parts.items() if is_costs(part) for mapping in MAPPINGS]


def make_loss(name: str, regression: bool, student_layers: int, teacher_layers: int) -> Loss:
    """The loss with its defaults."""
    name, _, mapping = name.partition("+")
    part = vars(losses)[name]
    if mapping:
        return LayerLoss([part()], MAPPINGS[mapping](student_layers, teacher_layers))
    options = {"regression": regression} if "regression" in inspect.signature(part).parameters else {}
    loss: Loss = part(**options)
    return loss


def random_states(layers: int, outputs: int, mask: Tensor, seed: int) -> EncoderStates:
    generator = torch.Generator().manual_seed(seed)
    batch, length = mask.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    return EncoderStates(
        logits=normal(batch, outputs),
        mask=mask,
        embeddings=normal(batch, length, 8),
        hidden=tuple(normal(batch, length, 8) for _ in range(layers)),
        attention_scores=tuple(normal(batch, 2, length, length) for _ in range(layers)),
        queries=tuple(normal(batch, length, 24) for _ in range(layers)),  # a width for 12 relation heads
        keys=tuple(normal(batch, length, 24) for _ in range(layers)),
        values=tuple(normal(batch, length, 24) for _ in range(layers)),
    )


def tensors(states: EncoderStates) -> list[Tensor]:
    found = [states.logits, states.embeddings, *states.hidden, *states.attention_scores]
    found += [*states.queries, *states.keys, *states.values]
    return [tensor for tensor in found if tensor is not None]


def mapped(states: EncoderStates, change: Callable[[Tensor], Tensor]) -> EncoderStates:
    return replace(
        states,
        logits=change(states.logits),
        embeddings=None if states.embeddings is None else change(states.embeddings),
        hidden=tuple(map(change, states.hidden)),
        attention_scores=tuple(map(change, states.attention_scores)),
        queries=tuple(map(change, states.queries)),
        keys=tuple(map(change, states.keys)),
        values=tuple(map(change, states.values)),
    )


class LossCase:
    """A loss with one batch of random states and labels; the last tokens of all texts but the first are padding."""

    def __init__(self, name: str, kind: str) -> None:
        outputs = max(1, len(KINDS[kind]))
        generator = torch.Generator().manual_seed(0)
        mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
        self.loss = make_loss(name, kind == "regression", 3, 7).eval()
        self.student = random_states(3, outputs, mask, seed=1)
        self.teacher = random_states(7, outputs, mask, seed=2)
        classes, scores = torch.randint(outputs, (3,), generator=generator), torch.rand(3, generator=generator)
        self.batch = {"labels": scores if kind == "regression" else classes}

    def value(self, student: EncoderStates | None = None, teacher: EncoderStates | None = None) -> Tensor:
        """The sum of the terms, at the layer weights as they are."""
        terms = self.loss(student or self.student, teacher or self.teacher, self.batch)
        assert all(isinstance(name, str) and value.ndim == 0 for name, value in terms.items())
        return torch.stack(list(terms.values())).sum()


@pytest.fixture(params=[(name, kind) for name in loss_names() for kind in KINDS], ids="-".join)
def loss_case(request: pytest.FixtureRequest) -> LossCase:
    return LossCase(*request.param)


def test_loss_is_finite_and_teaches_the_student_only(loss_case: LossCase) -> None:
    value = loss_case.value()
    assert torch.isfinite(value)
    value.backward()
    gradients = [state.grad for state in tensors(loss_case.student) if state.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
    assert all(state.grad is None for state in tensors(loss_case.teacher))


def test_loss_reads_only_what_it_needs(loss_case: LossCase) -> None:
    needs = loss_case.loss.needs
    assert needs <= NEEDS.keys()
    absent = {field: None if field == "embeddings" else () for need, field in NEEDS.items() if need not in needs}
    student, teacher = (replace(states, **absent) for states in (loss_case.student, loss_case.teacher))
    assert torch.equal(loss_case.value(student, teacher), loss_case.value())
    if not loss_case.loss.taught:
        nothing = mapped(teacher, lambda tensor: torch.full_like(tensor, torch.nan))
        assert torch.equal(loss_case.value(student, nothing), loss_case.value())


@pytest.mark.parametrize("filler", [1e6, math.nan])
def test_loss_does_not_see_padding(loss_case: LossCase, filler: float) -> None:
    real = loss_case.student.mask.bool()

    def spoil(tensor: Tensor) -> Tensor:
        if tensor.ndim == 2:
            return tensor
        valid = real[..., None] if tensor.ndim == 3 else real[:, None, :, None] & real[:, None, None, :]
        return torch.where(valid, tensor, filler).detach().requires_grad_()

    spoiled, value = mapped(loss_case.student, spoil), loss_case.value()
    again = loss_case.value(spoiled, mapped(loss_case.teacher, spoil))
    assert torch.equal(again, value)
    found, expected = (
        torch.autograd.grad(total, tensors(states), allow_unused=True)
        for total, states in ((again, spoiled), (value, loss_case.student))
    )
    for gradient, wanted in zip(found, expected, strict=True):
        assert (gradient is None) == (wanted is None)
        if gradient is not None and wanted is not None:
            assert torch.equal(gradient, wanted)


def test_loss_is_a_mean_over_the_batch(loss_case: LossCase) -> None:
    value = loss_case.value()

    def twice(states: EncoderStates) -> EncoderStates:
        return replace(mapped(states, lambda tensor: torch.cat([tensor, tensor])), mask=torch.cat([states.mask] * 2))

    loss_case.batch = {name: torch.cat([values, values]) for name, values in loss_case.batch.items()}
    torch.testing.assert_close(loss_case.value(twice(loss_case.student), twice(loss_case.teacher)), value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", loss_names())
def test_a_student_that_is_the_teacher_has_nothing_to_learn_from_it(name: str, kind: str) -> None:
    loss, case = make_loss(name, kind == "regression", 7, 7), LossCase(name, kind)
    for _ in range(3):  # in training mode: a mapping may move its state by such costs
        student = mapped(case.teacher, lambda tensor: tensor.detach().clone().requires_grad_())
        total = torch.stack(list(loss(student, case.teacher, case.batch).values())).sum()
        total.backward()
        gradients = torch.cat([state.grad.flatten() for state in tensors(student) if state.grad is not None])
        assert torch.isfinite(total)
        assert torch.isfinite(gradients).all()
        if loss.taught:
            torch.testing.assert_close(gradients, torch.zeros_like(gradients), rtol=0, atol=1e-6)


# --- mappings -----------------------------------------------------------------------------------------------------

SIZES = [(1, 1), (1, 5), (3, 6), (4, 6), (5, 3), (3, 7)]


def random_costs(student_layers: int, teacher_layers: int, seed: int) -> Tensor:
    return torch.rand(student_layers, teacher_layers, generator=torch.Generator().manual_seed(seed))


def make_mapping(name: str, size: tuple[int, int]) -> nn.Module:
    return MAPPINGS[name](*size)


def assert_flow(flow: Tensor, mapping: nn.Module, costs: Tensor) -> None:
    assert flow.shape == costs.shape
    assert not flow.requires_grad
    assert (flow >= 0).all()
    mass: Any = mapping.mass
    torch.testing.assert_close(flow.sum((-2, -1)), torch.full(costs.shape[:-2], float(mass)))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", MAPPINGS)
def test_flow_is_not_negative_and_sums_to_the_stated_mass(name: str, size: tuple[int, int]) -> None:
    mapping = make_mapping(name, size)
    for seed in range(5):
        costs = random_costs(*size, seed)
        assert_flow(mapping(costs.requires_grad_()), mapping, costs)
    stacked = torch.stack([random_costs(*size, seed) for seed in (7, 8)])
    assert_flow(mapping(stacked), mapping, stacked)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", MAPPINGS)
def test_mapping_survives_costs_of_0(name: str, size: tuple[int, int]) -> None:
    mapping = make_mapping(name, size)
    free = [torch.zeros(size), random_costs(*size, 0).fill_diagonal_(0), torch.zeros(size)]
    for costs in free * 3:
        assert_flow(mapping(costs), mapping, costs)
    assert all(torch.isfinite(value).all() for value in mapping.state_dict().values())


@pytest.mark.parametrize("name", MAPPINGS)
def test_mapping_goes_on_from_its_state(name: str) -> None:
    mapping = make_mapping(name, (3, 7))
    for seed in range(4):
        mapping(random_costs(3, 7, seed))
    resumed = make_mapping(name, (3, 7))
    resumed.load_state_dict(mapping.state_dict())
    for seed in range(4, 8):
        assert torch.equal(mapping(random_costs(3, 7, seed)), resumed(random_costs(3, 7, seed)))


@pytest.mark.parametrize("name", MAPPINGS)
def test_evaluation_leaves_the_mapping_as_it_is(name: str) -> None:
    mapping = make_mapping(name, (3, 7))
    mapping(random_costs(3, 7, 0))
    before = {key: value.clone() for key, value in mapping.state_dict().items()}
    mapping.eval()
    first = mapping(random_costs(3, 7, 1))
    mapping(random_costs(3, 7, 2))
    assert torch.equal(mapping(random_costs(3, 7, 1)), first)
    assert all(torch.equal(value, before[key]) for key, value in mapping.state_dict().items())


# --- students -----------------------------------------------------------------------------------------------------

Encoders = Callable[..., PreTrainedModel]


def named(model: PreTrainedModel, kind: str) -> PreTrainedModel:
    name_outputs(model.config, labels=KINDS[kind], regression=kind == "regression")
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", STUDENTS)
def test_student_is_a_stock_model(
    form: str, kind: str, tiny_encoder: Encoders, tiny_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    outputs = max(1, len(KINDS[kind]))
    teacher = named(tiny_encoder(layers=6, labels=outputs), kind)
    save_student(tiny_encoder(layers=1, width=16), tiny_tokenizer, tmp_path / "small")
    # 4x24: of a shape that is a part of this teacher, so that it can be cut from it.
    spec = STUDENTS[form].example.replace("DIR_OR_HUB_ID", str(tmp_path / "small")).replace("4x312", "4x24")
    sample = tiny_tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    before = fingerprint(teacher)
    student, tokenizer = make_student(
        spec,
        teacher,
        tiny_tokenizer,
        labels=KINDS[kind],
        predictions="score" if kind == "regression" else "classes",
        seed=3,
        sample=lambda: [{**sample, "labels": torch.zeros(len(TEXTS), dtype=torch.long)}],
    )
    inputs = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    student.eval()
    logits = student(**inputs).logits
    assert logits.shape == (len(TEXTS), outputs)
    assert torch.isfinite(logits).all()
    assert all(weight.requires_grad for weight in student.parameters())
    assert tuple(student.config.id2label.values()) == KINDS[kind] or kind == "regression"
    assert not {id(weight) for weight in student.parameters()} & {id(weight) for weight in teacher.parameters()}
    assert fingerprint(teacher) == before

    save_student(student, tokenizer, tmp_path / "student")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    again = AutoTokenizer.from_pretrained(tmp_path / "student")(list(TEXTS), padding=True, return_tensors="pt")
    assert torch.equal(loaded.eval()(**again).logits, logits)


# --- methods ------------------------------------------------------------------------------------------------------


def examples(tokenizer: PreTrainedTokenizerBase, kind: str) -> Dataset:
    labels = [0.5, 4.0, 1.5, 2.0] if kind == "regression" else [place % len(KINDS[kind]) for place in range(len(TEXTS))]
    rows = Dataset.from_dict({"text": list(TEXTS), "label": labels})
    return tokenise(rows, tokenizer, 32, regression=kind == "regression")


def one_step(
    stage: Stage, student: PreTrainedModel, teacher: Teacher, train: Dataset, tokenizer: Any, folder: Path
) -> DistillationTrainer:
    settings = {"max_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 0}
    quiet = {"disable_tqdm": True, "logging_steps": 1, "save_strategy": "no", "gradient_norm_steps": 0}
    # A stage's own settings (its epochs, say) stay; only what makes a step of it is set here.
    arguments = stage_arguments(
        replace(stage, training={**stage.training, **settings, **quiet}),
        {},
        folder=folder,
        choose=False,
        metric="accuracy",
        seed=0,
    )
    trainer = DistillationTrainer(
        student,
        teacher=teacher,
        objective=stage.objective,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=train,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_every_method_teaches_the_student_and_leaves_the_teacher(
    method: str, kind: str, tiny_encoder: Encoders, tiny_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    outputs = max(1, len(KINDS[kind]))
    teacher = Teacher(named(tiny_encoder(layers=3, width=16, heads=2, labels=outputs), kind))
    student = named(tiny_encoder(layers=2, width=8, heads=2, labels=outputs, seed=1), kind)
    taught, stock = teacher.fingerprint, set(student.state_dict())
    predictions = "score" if kind == "regression" else "classes"
    stages = METHODS[method](encoder_shape(student), teacher.shape, predictions=predictions)
    assert len({stage.name for stage in stages}) == len(stages) > 0
    for stage in stages:
        before = fingerprint(student)
        trainer = one_step(
            stage, student, teacher, examples(tiny_tokenizer, kind), tiny_tokenizer, tmp_path / stage.name
        )
        logged = trainer.state.log_history[0]
        terms = [value for name, value in logged.items() if name.startswith("terms/")]
        assert all(math.isfinite(value) for value in [logged["loss"], *terms])
        assert sum(terms) == pytest.approx(logged["loss"], rel=1e-3)
        assert len(terms) == len(stage.objective.weights)
        assert fingerprint(student) != before
    assert fingerprint(teacher.model) == taught
    assert not teacher.model.training
    assert all(weight.grad is None for weight in teacher.model.parameters())

    trainer.save_model(str(tmp_path / "student"))
    saved = load_file(tmp_path / "student" / "model.safetensors")
    assert set(saved) == stock
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert fingerprint(loaded) == fingerprint(student)


@pytest.mark.parametrize("method", METHODS)
def test_method_says_what_it_is_and_documents_every_setting(method: str) -> None:
    function = METHODS[method]
    documentation = inspect.getdoc(function) or ""
    first, *rest = documentation.splitlines()
    assert first.endswith(".")
    parameters = inspect.signature(function).parameters
    assert {"student", "teacher", "predictions"} <= parameters.keys()
    documented = {line.strip().partition(":")[0] for line in rest}
    assert parameters.keys() <= documented
    settings = [parameter for name, parameter in parameters.items() if name not in ("student", "teacher")]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in settings)


# --- tasks --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param]


def test_task_is_consistent(task: Task) -> None:
    assert TASKS[task.name] is task
    assert task.metrics
    assert set(task.metrics) <= METRICS.keys()
    if task.kind == "classification":
        assert len(set(task.labels)) == len(task.labels) == task.outputs >= 2
    else:
        assert task.labels == ()
        assert task.outputs == 1
    columns = [task.text, task.label, *([task.text_pair] if task.text_pair else [])]
    assert len(set(columns)) == len(columns)
    assert task.description
    assert "\n" not in task.description


def test_a_task_scores_the_truth_highest(task: Task) -> None:
    draw = np.random.RandomState(0)
    if task.kind == "classification":
        labels = np.arange(40) % task.outputs
        labels[: task.outputs * 2] = 0  # a most frequent class
        truth = np.eye(task.outputs)[labels]
    else:
        labels = draw.rand(40) * 5
        truth = labels[:, None]
    best = score(task, truth, labels)
    assert list(best) == list(task.metrics)
    assert best == pytest.approx(dict.fromkeys(task.metrics, 1.0))
    other = score(task, draw.standard_normal(truth.shape), labels)
    assert all(other[name] < 1 for name in task.metrics)
    assert chance(task, labels) < 1
