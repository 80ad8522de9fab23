"""Token budgets, and the order of an accelerator: other batches or another order of work, the same training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import names
from torch import Tensor
from training_runs import TWO_PHASES, AtStep, assert_same_outcome
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from emdistill.data.batches import TokenBudgetSampler
from emdistill.errors import ConfigError
from emdistill.training.run_stages import Interrupted

TOKENS = 80
BUDGET = {"tokens_per_batch": TOKENS}


def batches_of(run: Any) -> list[Tensor]:
    """The ids of every batch that the student is shown in training."""
    found: list[Tensor] = []

    def note(model: Any, _: Any, inputs: dict[str, Tensor]) -> None:
        if model.training:
            found.append(inputs["input_ids"])

    run.student.register_forward_pre_hook(note, with_kwargs=True)
    return found


def test_token_budgets_are_kept_and_the_schedule_ends_at_zero(new_run) -> None:
    run = new_run(**BUDGET, lr_scheduler_type="linear", warmup_steps=0)
    seen = batches_of(run)
    (stage,) = run.go()
    lengths = list(run.train["length"])
    sampler = TokenBudgetSampler(lengths, TOKENS, seed=3)
    assert len(seen) == 2 * len(sampler)
    assert all(ids.numel() <= TOKENS for ids in seen)
    shapes = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        shapes += [(len(batch), max(lengths[index] for index in batch)) for batch in sampler.batches()]
    assert [tuple(ids.shape) for ids in seen] == shapes
    rates = [entry["learning_rate"] for entry in stage["log"] if "learning_rate" in entry]
    assert rates == pytest.approx([1e-3 * (1 - step / len(seen)) for step in range(len(seen))])
    checkpoint = Path(get_last_checkpoint(str(run.folder / "checkpoints" / "joint")))
    assert torch.load(checkpoint / "scheduler.pt", weights_only=True)["_last_lr"] == [0.0, 0.0]


def test_every_sentence_is_trained_on_once_an_epoch(new_run) -> None:
    run = new_run(**BUDGET, num_train_epochs=1)
    seen = batches_of(run)
    run.go()
    sentences = sorted(tuple(row[row != 0].tolist()) for ids in seen for row in ids)
    assert sentences == sorted(map(tuple, run.train["input_ids"]))


@pytest.mark.parametrize(
    ("forced", "choose", "epoch"),
    [(False, True, 1), (True, False, 0), (True, True, 1)],
    ids=["synchronous", "asynchronous", "asynchronous, in the second epoch"],
)
def test_a_run_by_token_budget_is_resumed_as_if_uninterrupted(
    new_run, finished_run, asynchronous: Callable[[], None], forced: bool, choose: bool, epoch: int
) -> None:
    if forced:
        asynchronous()
    whole, parts = finished_run(choose=choose, **BUDGET), new_run(**BUDGET)
    steps = len(TokenBudgetSampler(list(parts.train["length"]), TOKENS, seed=3))
    with pytest.raises(Interrupted):
        parts.go(AtStep(epoch * steps + 3), choose=choose)
    resumed = new_run(**BUDGET)
    resumed.go(choose=choose, resume=True)
    assert_same_outcome(whole, resumed)


def test_a_budget_below_the_longest_sentence_is_refused(new_run) -> None:
    for budget in (5, -1):
        with names(ConfigError, "--training.tokens_per_batch", budget):
            new_run(tokens_per_batch=budget).go()


def watch(run: Any) -> list[tuple[str, Any]]:
    """What happens in a run, in order: (student | teacher, ids), (costs, None), (solve, None)."""
    events: list[tuple[str, Any]] = []

    def note(model: Any, _: Any, inputs: dict[str, Tensor]) -> None:
        if model is run.teacher.model or model.training:
            events.append(("student" if model is run.student else "teacher", inputs["input_ids"]))

    for model in (run.student, run.teacher.model):
        model.register_forward_pre_hook(note, with_kwargs=True)
    for stage in run.stages:
        for loss in stage.objective.layer_losses():
            costs, flow = loss.layer_costs, loss.mapping.flow
            loss.layer_costs = lambda *states, costs=costs: events.append(("costs", None)) or costs(*states)
            loss.mapping.flow = lambda *given, flow=flow: events.append(("solve", None)) or flow(*given)
    return events


def test_the_next_batch_is_taught_before_the_flows_are_solved(new_run, asynchronous: Callable[[], None]) -> None:
    asynchronous()
    run = new_run()
    events = watch(run)
    run.go()
    ahead = ["student", "costs", "teacher", "solve"]
    epoch = ["teacher", *ahead * 5, "student", "costs", "solve"]  # 6 batches; the last has no next one
    assert [name for name, _ in events] == epoch * 2
    asked = {name: [ids for what, ids in events if what == name] for name in ("student", "teacher")}
    for student, teacher in zip(asked["student"], asked["teacher"], strict=True):
        assert torch.equal(student, teacher)  # each batch once, in their order


def test_without_an_accelerator_the_teacher_comes_first(new_run) -> None:
    run = new_run(num_train_epochs=1)
    events = watch(run)
    run.go()
    assert [name for name, _ in events] == ["teacher", "student", "costs", "solve"] * 6


SCHEDULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 5},  # 12 batches: 5, 5, 2
    "early end": {"max_steps": 9},
    "early end with accumulation": {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 4,
    },
    "other sampling": {"train_sampling_strategy": "random"},
    "last batch short": {"per_device_train_batch_size": 10},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_accelerators_order_trains_the_same_student(
    new_run, finished_run, asynchronous: Callable[[], None], name: str
) -> None:
    settings, choose = SCHEDULES[name], name in ("plain", "accumulation")
    plain, ahead = finished_run(choose=choose, **settings), new_run(**settings)
    asynchronous()
    ahead.go(choose=choose)
    assert [without_times(part) for part in ahead.log] == [without_times(part) for part in plain.log]
    assert_same_outcome(plain, ahead)
    # Where training ends within an epoch, the batch that would have come next is taught in vain.
    assert len(ahead.teacher.passes) - len(plain.teacher.passes) == (1 if "early" in name else 0)
    for (_, one), (_, other) in zip(plain.teacher.passes, ahead.teacher.passes, strict=False):
        assert torch.equal(one, other)


def without_times(stage: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in entry.items() if not name.endswith(("_runtime", "_per_second"))}
        for entry in stage["log"]
    ]


class StopEpoch(TrainerCallback):
    """Ends every epoch after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_epoch_stop = round(state.epoch % 1 * 6) == self.steps


def test_what_was_fetched_and_taught_for_an_epoch_that_ended_early_is_forgotten(
    new_run, asynchronous: Callable[[], None]
) -> None:
    plain, ahead = new_run("plain", num_train_epochs=3), new_run("ahead", num_train_epochs=3)
    seen = [batches_of(run) for run in (plain, ahead)]
    plain.go(StopEpoch(2))
    asynchronous()
    ahead.go(StopEpoch(2))
    assert [len(batches) for batches in seen] == [6, 6]
    assert_same_outcome(plain, ahead)


@pytest.mark.parametrize("settings", [{}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}])
def test_a_run_taught_ahead_is_resumed_as_if_uninterrupted(
    new_run, finished_run, asynchronous: Callable[[], None], settings: dict[str, int]
) -> None:
    asynchronous()
    with pytest.raises(Interrupted):
        new_run(**settings).go(AtStep(3))
    resumed = new_run(**settings)
    resumed.go(resume=True)
    assert_same_outcome(finished_run(**settings), resumed)


def test_separate_layer_weights_and_two_phases_train_alike(new_run, asynchronous: Callable[[], None]) -> None:
    settings = {"objective": {"coupled": False, **TWO_PHASES}, "num_train_epochs": 1}
    plain, ahead = new_run("plain", **settings), new_run("ahead", **settings)
    plain.go()
    asynchronous()
    ahead.go()
    assert_same_outcome(plain, ahead)


def test_a_cached_teacher_is_read_ahead_alike(new_run, finished_run, asynchronous: Callable[[], None]) -> None:
    plain, ahead = finished_run(cache="states", **BUDGET), new_run(cache="states", **BUDGET)
    asynchronous()
    ahead.go()
    assert_same_outcome(plain, ahead)
