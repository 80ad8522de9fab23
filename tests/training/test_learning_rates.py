"""Layers that learn slowly: which they are, and how far a step takes them."""

from typing import Any

import pytest
import torch
from training_runs import AtStep, same_models
from transformers import TrainerCallback

from emdistill.models import encoder_layers
from emdistill.training.learning_rates import SLOWED, parameters_below, slow_down
from emdistill.training.run_stages import Interrupted

PROGRESSIVE = {"method": "mobilebert", "num_train_epochs": 4}  # two stages of a layer each, six steps each


def test_the_layers_below_and_the_embeddings_are_meant(tiny_encoder) -> None:
    for family in ("bert", "mobilebert", "distilbert", "deberta-v2"):
        student = tiny_encoder(family, layers=3)
        slow = {id(parameter) for parameter in parameters_below(student, 2)}
        first, second, third = ({id(part) for part in layer.parameters()} for layer in encoder_layers(student))
        assert slow >= first | second
        assert not slow & third
        assert id(student.get_input_embeddings().weight) in slow
        assert not any(id(part) in slow for name, part in student.named_parameters() if "classifier" in name)
        assert not parameters_below(student, 0)


def test_they_move_a_tenth_as_far_and_their_rate_follows_the_schedule() -> None:
    """Of Adam, whose steps do not know how large a gradient is."""
    weights = [torch.nn.Parameter(torch.zeros(3)) for _ in range(4)]
    groups = [{"params": weights[:2], "weight_decay": 0.1}, {"params": weights[2:], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    slow_down(optimizer, [weights[1], weights[2]])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 if step else 1.0)
    moved = []
    for _ in range(2):
        before = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.grad = torch.tensor([3.0, -2.0, 1.0])
        optimizer.step()
        scheduler.step()
        moved.append([float((weight.detach() - old).abs().mean()) for weight, old in zip(weights, before, strict=True)])
    for full, slow, slow_too, also_full in moved:
        assert (slow / full, slow_too / full, also_full / full) == pytest.approx((SLOWED, SLOWED, 1), rel=0.01)
    assert moved[1][1] == pytest.approx(0.5 * moved[0][1], rel=0.01)
    decay = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert [decay[id(weight)] for weight in weights] == [0.1, 0.1, 0.0, 0.0]


class Rates(TrainerCallback):
    """The learning rates of two of the student's weights, at every step."""

    def __init__(self, weights: list[torch.nn.Parameter]) -> None:
        self.weights = weights
        self.ratios: list[float] = []

    def on_step_begin(self, *_: Any, optimizer: torch.optim.Optimizer, **__: Any) -> None:
        rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
        low, high = (rates[id(weight)] for weight in self.weights)
        self.ratios += [low / high] if high else []


def test_a_progressive_run_slows_the_layers_below(new_run) -> None:
    run = new_run(**PROGRESSIVE)
    seen = Rates([next(layer.parameters()) for layer in encoder_layers(run.student)])
    run.go(seen)
    assert [stage["stage"] for stage in run.log] == ["layer-0", "layer-1", "prediction"]
    assert {round(ratio, 6) for ratio in seen.ratios} == {1.0, SLOWED}
    slow = [place for place, ratio in enumerate(seen.ratios) if ratio < 0.5]
    assert slow == list(range(slow[0], slow[-1] + 1))  # the second stage alone
    assert 0 < slow[0] < slow[-1] < len(seen.ratios) - 1


@pytest.mark.parametrize(("stage", "step"), [("layer-1", 3), ("prediction", 4)])
def test_a_progressive_run_is_resumed_as_if_uninterrupted(new_run, finished_run, stage: str, step: int) -> None:
    """Between unequal widths, so with a projection in every stage of a layer."""
    with pytest.raises(Interrupted):
        new_run(**PROGRESSIVE).go(AtStep(step, stage))
    resumed, whole = new_run(**PROGRESSIVE), finished_run(**PROGRESSIVE)
    resumed.go(resume=True)
    assert same_models(whole.student, resumed.student)  # of stages that were finished, it alone is kept
    assert same_models(whole.stages[-1].objective, resumed.stages[-1].objective)
