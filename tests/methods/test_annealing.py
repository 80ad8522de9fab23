"""Teacher annealing against its definition, in float64: target = p · label + (1 − p) · the teacher's answer."""

from typing import Any

import numpy as np
import pytest
import torch
from encoder_states import random_states
from messages import names

from emdistill.errors import ConfigError
from emdistill.methods.balanced import balanced
from emdistill.methods.soft_targets import soft_targets
from emdistill.states import CLASSES, EncoderShape, Predictions

SHAPE = EncoderShape(layers=2, width=8, heads=2)
MASK = torch.ones(5, 3, dtype=torch.long)
LINKS = {
    "softmax": (CLASSES, 3, torch.tensor([0, 2, 1, 1, 0])),
    "sigmoid": (Predictions("sigmoid", "multi_label_classification"), 3, torch.eye(5, 3, dtype=torch.float64)),
    "identity": (Predictions("identity", "regression"), 1, torch.linspace(-1, 2, 5, dtype=torch.float64)),
}


def expected_gradient(link: str, student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, p: float) -> np.ndarray:
    """∂/∂z of the loss on the mixed target, by hand."""
    rows = len(student)
    if link == "softmax":
        soft = np.exp(teacher) / np.exp(teacher).sum(axis=1, keepdims=True)
        target = p * np.eye(student.shape[1])[labels] + (1 - p) * soft
        return (np.exp(student) / np.exp(student).sum(axis=1, keepdims=True) - target) / rows
    if link == "sigmoid":
        target = p * labels + (1 - p) / (1 + np.exp(-teacher))
        return (1 / (1 + np.exp(-student)) - target) / student.size
    return 2 * (student - (p * labels[:, None] + (1 - p) * teacher)) / rows


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("step", [0, 3, 10])
def test_gradients_are_those_of_the_mixed_target(link: str, step: int) -> None:
    predictions, outputs, labels = LINKS[link]
    (stage,) = soft_targets(SHAPE, SHAPE, predictions=predictions, annealing=True)
    student, teacher = (random_states(SHAPE, MASK, seed, outputs=outputs) for seed in (0, 1))
    student.logits.requires_grad_()
    stage.objective.begin_step(step, 10)
    stage.objective(student, teacher, {"labels": labels})[0].backward()
    assert student.logits.grad is not None
    expected = expected_gradient(
        link, student.logits.detach().numpy(), teacher.logits.numpy(), labels.numpy(), step / 10
    )
    np.testing.assert_allclose(student.logits.grad.numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_the_loss_is_that_of_the_mixed_target(link: str) -> None:
    """Cross-entropies are linear in the target: the values agree too."""
    predictions, outputs, labels = LINKS[link]
    (stage,) = soft_targets(SHAPE, SHAPE, predictions=predictions, annealing=True)
    student, teacher = (random_states(SHAPE, MASK, seed, outputs=outputs) for seed in (0, 1))
    stage.objective.begin_step(1, 4)
    total = stage.objective(student, teacher, {"labels": labels})[0].item()
    z, t, y = student.logits.numpy(), teacher.logits.numpy(), labels.numpy()
    if link == "softmax":
        soft = np.exp(t) / np.exp(t).sum(axis=1, keepdims=True)
        target = 0.25 * np.eye(3)[y] + 0.75 * soft
        expected = -(target * (z - np.log(np.exp(z).sum(axis=1, keepdims=True)))).sum(axis=1).mean()
    else:
        target = 0.25 * y + 0.75 / (1 + np.exp(-t))
        chance = 1 / (1 + np.exp(-z))
        expected = -(target * np.log(chance) + (1 - target) * np.log(1 - chance)).mean()
    assert total == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"schedule": "two-phase"}, {"schedule": "fade"}])
def test_the_default_method_anneals_its_answers_alone(options: Any) -> None:
    last = balanced(SHAPE, SHAPE, annealing=True, **options)[-1].objective
    assert {name: last.schedules[name] for name in ("soft_targets", "hard_labels")} == {
        "soft_targets": "fade",
        "hard_labels": "grow",
    }
    assert (last.weights["soft_targets"], last.weights["hard_labels"]) == (1, 1)
    layers = {"hidden_states", "attention_scores", "embeddings"} & last.schedules.keys()
    assert bool(layers) == (options.get("schedule") == "fade")


def test_balance_measures_answers_as_they_weigh_now() -> None:
    """At the first step labels weigh nothing, so that the layers' factor is that of soft targets alone."""
    student, teacher = (random_states(SHAPE, MASK, seed, outputs=3) for seed in (0, 1))
    measured: list[dict[str, torch.Tensor]] = []

    def norms(parts: Any) -> dict[str, float]:
        measured.append(dict(parts))
        return dict.fromkeys(parts, 1.0)

    for options in ({"annealing": True}, {}):
        (stage,) = balanced(SHAPE, SHAPE, **options)
        objective = stage.objective.double()
        objective.begin_step(0, 10)
        objective(student, teacher, {"labels": LINKS["softmax"][2]}, None, norms)
    one, other = measured
    assert all(torch.allclose(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", [soft_targets, balanced])
def test_a_share_beside_annealing_is_refused(method: Any) -> None:
    with names(ConfigError, "--objective.annealing", "alpha", 0.5):
        method(SHAPE, SHAPE, alpha=0.5, annealing=True)
