"""What every method, mapping, student, loss and task promises, tested once for all that stand in the tables.

A new row in METHODS, MAPPINGS, STUDENTS or FORMS, and a new loss in emdistill.losses, is covered without a change here.
"""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from encoder_states import leaves, mapped, random_states, tensors, with_padding
from messages import names
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import emdistill.losses as losses
from emdistill.data.batches import PaddingCollator, tokenise
from emdistill.data.read import FORMS
from emdistill.errors import ConfigError, TransportError
from emdistill.losses import CrossView, LayerLoss, Loss, SentenceVectors
from emdistill.mapping import MAPPINGS, LayerMapping
from emdistill.methods import METHODS
from emdistill.models import Teacher, encoder_shape, fingerprint, name_outputs, save_student
from emdistill.models.bag import HEADS as BAG_HEADS
from emdistill.models.bilstm import HEADS as BILSTM_HEADS
from emdistill.models.encoder import head_logits
from emdistill.states import ANSWERS, ENDS, NO_ANSWER, NO_CLASS, EncoderShape, EncoderStates, answers_per_feature
from emdistill.students import STUDENTS, make_student
from emdistill.tasks import KINDS, TaskKind
from emdistill.tasks.task import Task
from emdistill.tasks.words import SPACES
from emdistill.training import DistillationTrainer, Stage
from emdistill.training.stage_arguments import stage_arguments

# What a model can be asked for: each kind of task, with the names of its labels; a score has none.
ASKED: dict[str, tuple[TaskKind, tuple[str, ...]]] = {
    name: (kind, () if kind.link == "identity" else ("no", "yes")) for name, kind in KINDS.items()
} | {"many classes": (KINDS["classification"], tuple("abcdefg"))}
NEEDS = {"embeddings": "embeddings", "hidden": "hidden", "attention": "attention_scores"}
NEEDS |= {name: name for name in ("queries", "keys", "values", "features")}
TEXTS = ("the movie was good", "a bad book", "it is not very good and it was not the book", "a movie")


def some_labels(asked: str, rows: int) -> list[Any]:
    """A label per row, as the kind encodes them: of TEXTS, where words have labels."""
    kind, labels = ASKED[asked]
    if kind.link == "positions":
        return [[[0, 1 + row]] for row in range(rows)]
    if not kind.one_answer:
        return [[(row + word) % len(labels) for word in range(len(TEXTS[row].split()))] for row in range(rows)]
    if kind.link == "identity":
        return [0.5 + 1.25 * row for row in range(rows)]
    indices = [row % len(labels) for row in range(rows)]
    return indices if kind.link == "softmax" else np.eye(len(labels))[indices].tolist()


# --- losses -------------------------------------------------------------------------------------------------------


def part(name: str) -> Any:
    return vars(losses)[name]


def loss_names() -> list[str]:
    """Every published loss but the bases, and LayerLoss over costs and mappings: HiddenStateCosts+emd.

    Costs and mappings know each other by the costs' matrix and the mapping's pairs alone. So every kind of costs meets
    a mapping that takes all pairs and one that takes some, and every mapping meets one kind of costs.
    """
    parts = {name: part(name) for name in vars(losses) if inspect.isclass(part(name))}
    # The last two map by themselves what they read: tests/losses/test_cross_view.py and test_sentence_vectors.py.
    apart = (Loss, LayerLoss, CrossView, SentenceVectors)
    plain = [name for name, loss in parts.items() if issubclass(loss, Loss) and loss not in apart]
    costs = [
        name
        for name, kind in parts.items()
        if isinstance(vars(kind).get("needs"), frozenset) and not issubclass(kind, Loss)
    ]
    some = next(name for name, build in MAPPINGS.items() if build(3, 7).pairs)
    every = next(name for name, build in MAPPINGS.items() if build(3, 7).pairs is None)
    layers = [(kind, mapping) for kind in costs for mapping in (every, some)]
    layers += [(costs[0], mapping) for mapping in MAPPINGS if mapping not in (every, some)]
    return plain + [f"{kind}+{mapping}" for kind, mapping in layers]


def make_loss(name: str, kind: str, student_layers: int, teacher_layers: int) -> Loss:
    """The loss with its defaults."""
    name, _, mapping = name.partition("+")
    if mapping:
        return LayerLoss([part(name)()], MAPPINGS[mapping](student_layers, teacher_layers))
    settings = {"link": ASKED[kind][0].link, "width": 24, "tasks": 2}
    needed = settings.keys() & inspect.signature(part(name)).parameters.keys()
    loss: Loss = part(name)(**{setting: settings[setting] for setting in needed})
    return loss


def loss_cases() -> list[tuple[str, str]]:
    """Each loss once for each kind of labels, or once where it reads no predictions."""
    one = next(iter(ASKED))
    kinds = {name: ASKED if make_loss(name, one, 3, 7).predicts else [one] for name in loss_names()}
    return [(name, kind) for name in kinds for kind in kinds[name]]


def _some_batch(kind: str) -> dict[str, Tensor]:
    """Labels of three rows; where a row has several answers, of 3, 1 and 2 words, one of them without a label."""
    if ASKED[kind][0].one_answer:
        return {"labels": torch.tensor(some_labels(kind, 3))}
    places = torch.tensor([[1, 2, 3], [1, NO_ANSWER, NO_ANSWER], [1, 2, NO_ANSWER]])
    if ASKED[kind][0].link == "positions":
        return {ANSWERS: places, ENDS: places, "labels": torch.tensor([[0, 2], [0, 0], [NO_CLASS, NO_CLASS]])}
    labels = torch.tensor([[0, 1, NO_CLASS], [1, NO_CLASS, NO_CLASS], [0, 1, NO_CLASS]])
    return {ANSWERS: places, "labels": labels}


class LossCase:
    """A loss with one batch of random states and labels; the last tokens of all texts but the first are padding."""

    def __init__(self, name: str, kind: str, student_layers: int = 3) -> None:
        outputs = max(1, len(ASKED[kind][1]))
        mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
        self.loss = make_loss(name, kind, student_layers, 7).eval()
        self.batch = _some_batch(kind) | {"task": torch.ones(3, dtype=torch.long)}
        answers = sum(answers_per_feature({**self.batch, "input_ids": mask}))
        sizes = {"outputs": outputs, "answers": answers, "vectors": 24}  # a width for 12 relation heads
        options: dict[str, Any] = {**sizes, "dtype": torch.float32}
        self.student, self.teacher = (
            leaves(random_states(EncoderShape(layers, 8, 2), mask, seed, **options))
            for seed, layers in enumerate((student_layers, 7))
        )

    def value(self, student: EncoderStates | None = None, teacher: EncoderStates | None = None) -> Tensor:
        """The sum of the terms, at the layer weights as they are."""
        terms = self.loss(student or self.student, teacher or self.teacher, self.batch)
        assert all(isinstance(name, str) and value.ndim == 0 for name, value in terms.items())
        return torch.stack(list(terms.values())).sum()


@pytest.fixture(params=loss_cases(), ids="-".join)
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
    loss, expected = loss_case.loss, loss_case.value()
    of_student = loss.needs | loss.own_needs
    assert of_student <= NEEDS.keys()
    further: dict[str, Any] = {}
    if not loss.predicts:
        further["logits"], loss_case.batch = torch.empty(3, 0), {"task": loss_case.batch["task"]}

    def with_only(states: EncoderStates, needs: frozenset[str]) -> EncoderStates:
        absent = [field for need, field in NEEDS.items() if need not in needs]
        return replace(states, **further, **{field: None if field == "embeddings" else () for field in absent})

    student, teacher = with_only(loss_case.student, of_student), with_only(loss_case.teacher, loss.needs)
    assert torch.equal(loss_case.value(student, teacher), expected)
    if not loss_case.loss.taught:
        nothing = mapped(teacher, lambda tensor: torch.full_like(tensor, torch.nan))
        assert torch.equal(loss_case.value(student, nothing), expected)


@pytest.mark.parametrize("filler", [1e6, math.nan])
def test_loss_does_not_see_padding(loss_case: LossCase, filler: float) -> None:
    spoiled, value = with_padding(loss_case.student, filler), loss_case.value()
    again = loss_case.value(spoiled, with_padding(loss_case.teacher, filler))
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


@pytest.mark.parametrize(("name", "kind"), loss_cases())
def test_a_student_that_is_the_teacher_has_nothing_to_learn_from_it(name: str, kind: str) -> None:
    case = LossCase(name, kind, student_layers=7)
    case.loss.train()  # a mapping may move its state by such costs
    for _ in range(3):
        student = leaves(case.teacher)
        total = case.value(student)
        total.backward()
        gradients = torch.cat([state.grad.flatten() for state in tensors(student) if state.grad is not None])
        assert torch.isfinite(total)
        assert torch.isfinite(gradients).all()
        if case.loss.taught:
            torch.testing.assert_close(gradients, torch.zeros_like(gradients), rtol=0, atol=1e-6)


# --- mappings -----------------------------------------------------------------------------------------------------

SIZES = [(1, 1), (1, 5), (3, 6), (4, 6), (5, 3), (3, 7)]


def random_costs(student_layers: int, teacher_layers: int, seed: int) -> Tensor:
    return torch.rand(student_layers, teacher_layers, generator=torch.Generator().manual_seed(seed))


def state_of(mapping: LayerMapping) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in mapping.state_dict().items()}


def assert_same_state(mapping: LayerMapping, state: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, state[name]) for name, value in mapping.state_dict().items())


def assert_flow(flow: Tensor, mapping: LayerMapping, costs: Tensor) -> None:
    assert flow.shape == costs.shape
    assert flow.dtype == costs.dtype
    assert not flow.requires_grad
    assert (flow >= 0).all()
    expected = torch.full(costs.shape[:-2], float(mapping.mass), dtype=costs.dtype)
    torch.testing.assert_close(flow.sum((-2, -1)), expected)


@pytest.mark.parametrize("name", MAPPINGS)
def test_flow_is_not_negative_and_sums_to_the_stated_mass(name: str) -> None:
    for size in SIZES:
        mapping = MAPPINGS[name](*size)
        for seed in range(5):
            costs = random_costs(*size, seed)
            assert_flow(mapping(costs.requires_grad_()), mapping, costs)
        stacked = torch.stack([random_costs(*size, seed) for seed in (7, 8)])
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            assert_flow(mapping(stacked.to(dtype)), mapping, stacked.to(dtype))


@pytest.mark.parametrize("name", MAPPINGS)
def test_mapping_survives_costs_of_0(name: str) -> None:
    for size in SIZES:
        mapping = MAPPINGS[name](*size)
        free = [torch.zeros(size), random_costs(*size, 0).fill_diagonal_(0), torch.zeros(size)]
        for costs in free * 3:
            assert_flow(mapping(costs), mapping, costs)
        assert all(torch.isfinite(value).all() for value in mapping.state_dict().values())


@pytest.mark.parametrize("name", MAPPINGS)
def test_mapping_goes_on_from_its_state(name: str) -> None:
    mapping, resumed = MAPPINGS[name](3, 7), MAPPINGS[name](3, 7)
    for seed in range(4):
        mapping(random_costs(3, 7, seed))
    resumed.load_state_dict(mapping.state_dict())
    for seed in range(4, 8):
        assert torch.equal(mapping(random_costs(3, 7, seed)), resumed(random_costs(3, 7, seed)))
    assert_same_state(mapping, resumed.state_dict())


@pytest.mark.parametrize("name", MAPPINGS)
def test_evaluation_leaves_the_mapping_as_it_is(name: str) -> None:
    mapping = MAPPINGS[name](3, 7)
    mapping(random_costs(3, 7, 0))
    before = state_of(mapping)
    mapping.eval()
    first = mapping(random_costs(3, 7, 1))
    mapping(random_costs(3, 7, 2))
    assert torch.equal(mapping(random_costs(3, 7, 1)), first)
    assert_same_state(mapping, before)


@pytest.mark.parametrize("name", MAPPINGS)
def test_costs_that_are_none_are_refused_and_leave_the_mapping_as_it_is(name: str) -> None:
    """Of other layers; or one of them is not a cost, which a fixed flow does not look at."""
    mapping = MAPPINGS[name](3, 7)
    mapping(random_costs(3, 7, 0))
    before = state_of(mapping)
    for shape in ((7, 3), (21,), (3, 5), (0, 3, 7)):
        with names(TransportError, 3, 7):
            mapping(torch.ones(shape))
    for bad in (math.nan, math.inf, -1.0):
        costs = torch.stack([random_costs(3, 7, seed) for seed in (1, 2)])
        costs[1, 2, 4] = bad
        if mapping.pairs is None:
            # What is solved where the costs are, on an accelerator, does not wait to look for the place.
            with names(TransportError, "costs[2, 4]" if mapping.host_inputs(costs) else re.compile("costs")):
                mapping(costs)
        else:
            assert_flow(mapping(costs), mapping, costs)
    assert_same_state(mapping, before)


# --- students -----------------------------------------------------------------------------------------------------

Encoders = Callable[..., PreTrainedModel]
HEADS_OF_OWN_FAMILIES = {"bilstm": BILSTM_HEADS, "bag": BAG_HEADS}


def named(model: PreTrainedModel, kind: str) -> PreTrainedModel:
    asked, labels = ASKED[kind]
    name_outputs(model.config, labels=labels, problem_type=asked.problem_type)
    return model


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("form", STUDENTS)
def test_student_is_a_stock_model(
    form: str, kind: str, tiny_encoder: Encoders, tiny_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    asked, labels = ASKED[kind]
    outputs = max(1, len(labels))
    teacher = named(tiny_encoder(layers=6, labels=outputs, head=asked.head), kind)
    save_student(tiny_encoder(layers=1, width=16), tiny_tokenizer, tmp_path / "small")
    # 4x24: of a shape that is a part of this teacher, so that it can be cut from it.
    spec = STUDENTS[form].example.replace("DIR_OR_HUB_ID", str(tmp_path / "small")).replace("4x312", "4x24")
    rows = examples(tiny_tokenizer, kind).remove_columns("length").to_list()
    sample = PaddingCollator(tiny_tokenizer)(rows)
    before = fingerprint(teacher)
    options: dict[str, Any] = {"labels": labels, "predictions": asked.predictions, "sample": lambda _: [sample]}
    if asked.head not in HEADS_OF_OWN_FAMILIES.get(form, {asked.head}):
        with names(ConfigError, f"--student {form}", asked.head):
            make_student(spec, teacher, tiny_tokenizer, **options)
        return
    student, tokenizer = make_student(spec, teacher, tiny_tokenizer, seed=3, **options)
    inputs = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    student.eval()
    logits = head_logits(student(**inputs))
    assert (len(logits), logits.shape[-1]) == (len(TEXTS), outputs)
    assert torch.isfinite(logits).all()
    assert all(weight.requires_grad for weight in student.parameters())
    assert tuple(student.config.id2label.values()) == labels or not labels
    assert not {id(weight) for weight in student.parameters()} & {id(weight) for weight in teacher.parameters()}
    assert fingerprint(teacher) == before

    save_student(student, tokenizer, tmp_path / "student")
    loaded = getattr(transformers, f"AutoModelFor{asked.head}").from_pretrained(tmp_path / "student")
    again = AutoTokenizer.from_pretrained(tmp_path / "student")(list(TEXTS), padding=True, return_tensors="pt")
    assert torch.equal(head_logits(loaded.eval()(**again)), logits)


# --- methods ------------------------------------------------------------------------------------------------------


def examples(tokenizer: PreTrainedTokenizerBase, kind: str) -> Dataset:
    asked, labels = ASKED[kind]
    task = Task("t", asked, labels, asked.metrics_of(labels), words=SPACES)
    pairs = {"text_pair": list(TEXTS)} if asked.link == "positions" else {}
    rows = task.rows_of_text({"text": list(TEXTS), **pairs}).add_column("label", some_labels(kind, len(TEXTS)))
    return tokenise(rows, tokenizer, 32, asked)


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


# Methods that are not for every kind of task, or for every student.
OF_CLASSES = {"cross-view"}
OF_BILSTMS = {"cross-view"}
OF_RAW_TEXT = {"sentence-vectors"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_every_method_teaches_the_student_and_leaves_the_teacher(
    method: str, kind: str, tiny_encoder: Encoders, tiny_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    asked, labels = ASKED[kind]
    outputs = max(1, len(labels))
    sizes: dict[str, Any] = {"labels": outputs, "head": asked.head}
    teacher = Teacher(named(tiny_encoder(layers=3, width=16, heads=2, **sizes), kind))
    own: dict[str, Any] = {"family": "bilstm", "heads": 0} if method in OF_BILSTMS else {"heads": 2}
    predictions = replace(asked.predictions, outputs=outputs)
    if (method in OF_CLASSES and asked.link != "softmax") or method in OF_RAW_TEXT:
        with pytest.raises(ConfigError):
            METHODS[method](EncoderShape(2, 8, own["heads"]), teacher.shape, predictions=predictions)
        return
    student = named(tiny_encoder(layers=2, width=8, seed=1, **sizes, **own), kind)
    taught, stock = teacher.fingerprint, set(student.state_dict())
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
    loaded = getattr(transformers, f"AutoModelFor{asked.head}").from_pretrained(tmp_path / "student")
    assert fingerprint(loaded) == fingerprint(student)


@pytest.mark.parametrize("method", METHODS)
def test_method_says_what_it_is_and_documents_every_setting(method: str) -> None:
    function = METHODS[method]
    documentation = inspect.getdoc(function) or ""
    first, *rest = documentation.splitlines()
    assert first.endswith(".")
    parameters = inspect.signature(function).parameters
    given = {"student", "teacher", "predictions"}
    assert given <= parameters.keys()
    documented = {line.strip().partition(":")[0] for line in rest}
    assert parameters.keys() - given <= documented
    settings = [parameter for name, parameter in parameters.items() if name not in ("student", "teacher")]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in settings)


# --- tasks --------------------------------------------------------------------------------------------------------


TASKS = {name: task for form in FORMS for name in form.tasks if (task := form.known(name))}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param]


def test_task_is_consistent(task: Task) -> None:
    assert TASKS[task.name] is task
    assert task.metrics
    assert set(task.metrics) <= task.kind.metrics.keys()
    assert len(set(task.labels)) == len(task.labels)
    assert task.outputs == (1 if task.kind.link == "identity" else len(task.labels))
    assert task.positive is None or task.positive in task.labels
    columns = [task.text, task.label, *([task.text_pair] if task.text_pair else [])]
    assert len(set(columns)) == len(columns)
    assert task.description
    assert "\n" not in task.description


def test_a_task_scores_the_truth_highest(task: Task) -> None:
    draw = np.random.RandomState(0)
    if task.kind.link == "softmax":
        labels = np.arange(40) % task.outputs
        labels[: task.outputs * 2] = 0  # a most frequent class
        truth = np.eye(task.outputs)[labels]
    else:
        labels = draw.rand(40) * 5
        truth = labels[:, None]
    best = task.score(truth, labels)
    assert list(best) == list(task.metrics)
    assert best == pytest.approx(dict.fromkeys(task.metrics, 1.0))
    other = task.score(draw.standard_normal(truth.shape), labels)
    assert all(other[name] < 1 for name in task.metrics)
    assert task.chance(labels) < 1
