import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import names
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import (
    STEPS_AN_EPOCH,
    TWO_PHASES,
    AtStep,
    Run,
    assert_same_outcome,
    press_ctrl_c,
    same_models,
    same_tensors,
)
from transformers.trainer_utils import get_last_checkpoint

from emdistill.errors import ModelError, TrainingError
from emdistill.runs.flows import read_flows
from emdistill.training.run_stages import Interrupted


def test_the_same_seed_gives_the_same_student_bit_for_bit_and_training_changes_it(new_run, finished_run) -> None:
    one, other, before = finished_run(), new_run("other"), new_run("before")
    other.go()
    assert_same_outcome(one, other)
    assert not same_models(one.student, before.student)
    assert not same_models(one.stages[0].objective, before.stages[0].objective)


def test_another_seed_gives_another_student(new_run, finished_run) -> None:
    other = new_run("other")
    other.seed = 4
    other.go()
    assert not same_models(finished_run().student, other.student)


@pytest.mark.parametrize(
    ("step", "choose"), [(3, False), (8, True), (STEPS_AN_EPOCH - 1, True), (STEPS_AN_EPOCH - 1, False)]
)
def test_a_run_resumed_after_ctrl_c_ends_as_if_uninterrupted(new_run, finished_run, step: int, choose: bool) -> None:
    """In the middle of either epoch, and at the last step of one."""
    with pytest.raises(Interrupted):
        new_run().go(AtStep(step), choose=choose)
    resumed, whole = new_run(), finished_run(choose=choose)
    resumed.go(choose=choose, resume=True)
    assert_same_outcome(whole, resumed)
    if choose:
        scores = [
            [entry["eval_accuracy"] for entry in run.log[0]["log"] if "eval_accuracy" in entry]
            for run in (whole, resumed)
        ]
        assert scores[0] == scores[1]
    else:
        last = [torch.load(Path(get_last_checkpoint(str(run.folder / "checkpoints" / "joint"))) / "optimizer.pt",
                           weights_only=True) for run in (whole, resumed)]  # fmt: skip
        for one, other in zip(last[0]["state"].values(), last[1]["state"].values(), strict=True):
            assert same_tensors(one, other)


def test_a_run_stopped_at_its_very_last_step_has_its_student(new_run, finished_run) -> None:
    with names(Interrupted, "'joint'"):
        new_run().go(AtStep(2 * STEPS_AN_EPOCH - 1))
    resumed = new_run()
    resumed.go(resume=True)
    assert_same_outcome(finished_run(), resumed, resumed_after="joint")


def test_the_checkpoint_of_an_interruption_is_kept_beside_a_better_one(new_run) -> None:
    run = new_run()
    with names(Interrupted, 9, 12, "'joint'"):
        run.go(AtStep(8), choose=True)
    checkpoints = run.folder / "checkpoints" / "joint"
    state = json.loads((checkpoints / "checkpoint-9" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(checkpoints / "checkpoint-6")
    assert (checkpoints / "checkpoint-6" / "model.safetensors").is_file()
    # the half epoch was not scored
    assert [entry["step"] for entry in state["log_history"] if "eval_accuracy" in entry] == [6]


@pytest.mark.parametrize(("stage", "step"), [("intermediate", 4), ("prediction", 0), ("prediction", 4)])
def test_a_two_phase_run_is_resumed_in_either_phase(new_run, finished_run, stage: str, step: int) -> None:
    with pytest.raises(Interrupted):
        new_run(objective=TWO_PHASES).go(AtStep(step, stage))
    resumed, whole = new_run(objective=TWO_PHASES), finished_run(objective=TWO_PHASES)
    resumed.go(resume=True)
    assert_same_outcome(whole, resumed, resumed_after="intermediate" if stage == "prediction" else None)
    for run in (whole, resumed):
        assert [part["stage"] for part in run.log] == ["intermediate", "prediction"]
        assert all(part["log"] for part in run.log)


def test_each_phase_trains_on_its_own_terms_and_settings(new_run) -> None:
    run = new_run(objective=TWO_PHASES, learning_rate=2e-3, warmup_steps=0)
    first, second = run.go()
    terms = [{key for entry in part["log"] for key in entry if key.startswith("terms/")} for part in (first, second)]
    assert terms == [{"terms/attention_scores", "terms/hidden_states", "terms/embeddings"}, {"terms/soft_targets"}]
    assert first["log"][0]["learning_rate"] == pytest.approx(1e-3)
    assert second["log"][0]["learning_rate"] == pytest.approx(2e-3)


def forget_the_end(run: Run) -> None:
    """As a kill leaves the folder that comes after the last checkpoint, and before the stage is noted as finished."""
    shutil.rmtree(run.folder / "checkpoints" / "joint" / "finished")


@pytest.mark.parametrize("settings", [{"max_steps": 8}, {"num_train_epochs": 1.25}])
def test_a_run_that_ended_within_an_epoch_is_not_trained_further_by_a_resume(
    new_run, settings: dict[str, float]
) -> None:
    whole, run = (new_run(name, lr_scheduler_type="constant", **settings) for name in ("whole", "run"))
    whole.go()
    run.go()
    forget_the_end(run)
    resumed = new_run(lr_scheduler_type="constant", **settings)
    resumed.go(resume=True)
    assert_same_outcome(whole, resumed)


def test_a_checkpoint_that_was_cut_off_while_being_written_is_passed_over(new_run, finished_run) -> None:
    parts = new_run()
    with pytest.raises(Interrupted):
        parts.go(AtStep(3))
    broken = parts.folder / "checkpoints" / "joint" / "checkpoint-5"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes(b"half of it")
    resumed = new_run()
    resumed.go(resume=True)
    assert_same_outcome(finished_run(), resumed)


def test_a_second_ctrl_c_stops_at_once(new_run) -> None:
    def twice() -> None:
        press_ctrl_c()
        press_ctrl_c()

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    with pytest.raises(KeyboardInterrupt):
        new_run().go(AtStep(3, action=twice))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def falling_scores(values: list[float]) -> Callable[..., dict[str, float]]:
    """A score a call, whatever the logits."""
    left = iter(values)
    return lambda logits, labels: {"accuracy": next(left)}


def test_the_best_checkpoint_is_kept_and_not_the_last(new_run) -> None:
    settings = {"lr_scheduler_type": "constant", "warmup_steps": 0, "per_device_train_batch_size": 16}
    one, two = new_run("one", num_train_epochs=3, **settings), new_run("two", num_train_epochs=2, **settings)
    one.score, two.score = falling_scores([0.5, 0.9, 0.1]), falling_scores([0.5, 0.9])
    one.go(choose=True)
    two.go(choose=True)
    assert same_models(one.student, two.student)  # the second epoch's, at a constant learning rate
    assert same_models(one.stages[0].objective, two.stages[0].objective)


def test_early_stopping_counts_on_after_a_resume(new_run) -> None:
    settings = {"num_train_epochs": 6, "early_stopping_patience": 2, "per_device_train_batch_size": 16}
    whole = new_run("whole", **settings)
    whole.score = falling_scores([0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    whole.go(choose=True)
    parts = new_run("parts", **settings)
    parts.score = falling_scores([0.9, 0.5])
    with pytest.raises(Interrupted):
        parts.go(AtStep(7), choose=True)  # of the third epoch
    resumed = new_run("parts", **settings)
    resumed.score = falling_scores([0.4, 0.3, 0.2, 0.1])
    resumed.go(choose=True, resume=True)
    assert [max(entry["epoch"] for entry in run.log[0]["log"]) for run in (whole, resumed)] == [3, 3]
    assert same_models(whole.student, resumed.student)


def test_a_run_that_stopped_early_is_not_trained_further_by_a_resume(new_run) -> None:
    settings = {"num_train_epochs": 6, "early_stopping_patience": 2, "per_device_train_batch_size": 16}
    run = new_run(**settings)
    run.score = falling_scores([0.9, 0.5, 0.4])
    run.go(choose=True)
    forget_the_end(run)
    resumed = new_run(**settings)
    resumed.score = falling_scores([1.0])
    resumed.go(choose=True, resume=True)
    assert same_models(run.student, resumed.student)


def test_a_nan_loss_stops_with_step_and_term_and_keeps_the_last_good_checkpoint(new_run) -> None:
    run = new_run(method="soft-targets")

    def spoil() -> None:
        with torch.no_grad():
            run.student.classifier.weight.fill_(float("nan"))

    with names(TrainingError, 9, "soft_targets", "checkpoint-6"):
        run.go(AtStep(8, action=spoil))
    kept = load_file(run.folder / "checkpoints" / "prediction" / "checkpoint-6" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_nan_layer_costs_are_named_with_their_step(new_run) -> None:
    run = new_run()

    def spoil() -> None:
        with torch.no_grad():
            run.student.bert.encoder.layer[0].output.dense.weight.fill_(float("inf"))

    with names(TrainingError, 3, "hidden_states"):
        run.go(AtStep(2, action=spoil))


def test_nan_logits_at_evaluation_leave_the_earlier_checkpoint(new_run) -> None:
    run = new_run(method="soft-targets")
    calls = []

    def score(logits: Any, labels: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise ModelError("the model's outputs are NaN")
        return {"accuracy": 0.5}

    run.score = score
    with pytest.raises(ModelError):
        run.go(choose=True)
    assert (run.folder / "checkpoints" / "prediction" / "checkpoint-6" / "model.safetensors").is_file()


def test_a_checkpoint_holds_student_and_objective_and_the_optimizer_learns_both(finished_run) -> None:
    run = finished_run()
    checkpoint = Path(get_last_checkpoint(str(run.folder / "checkpoints" / "joint")))
    saved = load_file(checkpoint / "model.safetensors")
    assert {name.partition(".")[0] for name in saved} == {"student", "objective"}
    student = {name.removeprefix("student."): tensor for name, tensor in saved.items() if name.startswith("student.")}
    assert same_tensors(student, run.student.state_dict())
    buffers = dict(run.stages[0].objective.named_buffers())
    (weights,) = [name for name in buffers if name.endswith("student_weights")]
    assert torch.equal(saved[f"objective.{weights}"], buffers[weights])
    assert buffers[weights].unique().numel() > 1  # cost attention has moved them
    optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    learned = sum(len(group["params"]) for group in optimizer["param_groups"])
    objective = list(run.stages[0].objective.parameters())
    assert len(objective) == 1  # the shared projection
    assert learned == len(list(run.student.parameters())) + len(objective)


def test_tensorboard_gets_loss_terms_norms_and_scores(new_run) -> None:
    run = new_run(logging_steps=2, gradient_norm_steps=2)
    run.go(choose=True)
    events = EventAccumulator(str(run.folder / "tensorboard" / "joint"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    for name in ("attention_scores", "hidden_states", "embeddings", "soft_targets"):
        assert {f"train/terms/{name}", f"train/gradient_norms/{name}"} <= tags
    assert {"train/loss", "train/learning_rate", "eval/accuracy"} <= tags
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6, 8, 10, 12]


def test_flows_are_recorded_at_the_first_the_regular_and_the_last_step(new_run) -> None:
    run = new_run(flow_steps=5)
    run.go()
    records = read_flows(run.folder / "flows.jsonl")
    assert [record.step for record in records] == [1, 5, 10, 12]
    for record in records:
        for name in ("attention_scores", "hidden_states"):
            flow = torch.tensor(record.flows[name])
            assert flow.shape == (2, 3)
            assert flow.sum().item() == pytest.approx(1, abs=1e-6)


def test_no_flows_are_recorded_when_switched_off(new_run) -> None:
    run = new_run(flow_steps=0)
    run.go()
    assert not (run.folder / "flows.jsonl").exists()


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_schedules_warm_up_and_decay(new_run, scheduler: str) -> None:
    """8 steps, of which the first quarter warms up."""
    sizes = {"num_train_epochs": 1, "per_device_train_batch_size": 6}
    run = new_run(method="soft-targets", lr_scheduler_type=scheduler, warmup_steps=0.25, **sizes)
    rates = [entry["learning_rate"] for entry in run.go()[0]["log"] if "learning_rate" in entry]
    assert len(rates) == 8
    assert rates[2] == pytest.approx(1e-3)
    if scheduler != "constant":
        assert rates[0] < rates[1] < rates[2]
    if scheduler in ("linear", "cosine"):
        assert rates[2] > rates[4] > rates[6] > rates[7] > 0
    else:
        assert set(rates[3:]) == {rates[2]}


def test_bf16_trains_on_a_cpu(new_run) -> None:
    run = new_run(bf16=True)
    losses = [entry["loss"] for entry in run.go(choose=True)[0]["log"] if "loss" in entry]
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert all(weight.dtype is torch.float32 for weight in run.student.parameters())
