"""NaN and infinity are named with their step, at once or one step later, and never reach a checkpoint or a student."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import names
from safetensors.torch import load_file
from torch import Tensor
from training_runs import STEPS_AN_EPOCH

from emdistill.errors import TrainingError
from emdistill.losses import Objective, SoftTargets
from emdistill.training import Stage, lesson
from emdistill.training.finite_checks import FiniteChecks, NotFinite
from emdistill.training.trainer import DistillationTrainer

NAN, INFINITY = float("nan"), float("inf")


def values(**numbers: float) -> dict[str, Tensor]:
    return {name: torch.tensor(number) for name, number in numbers.items()}


def test_at_once_the_first_bad_value_is_named_with_its_step() -> None:
    checks = FiniteChecks(delayed=False)
    assert checks.note(1, values(one=1.0, two=-2.0)) is None
    assert checks.note(2, values(one=1.0, two=NAN, three=INFINITY)) == NotFinite(2, "two is NaN or infinite")
    assert checks.note(3, values(one=-INFINITY)) == NotFinite(3, "one is NaN or infinite")
    assert checks.settle() is None


def test_delayed_a_step_answers_for_those_before_it() -> None:
    checks = FiniteChecks(delayed=True)
    assert checks.note(1, values(loss=1.0)) is None
    assert checks.note(2, values(loss=NAN)) is None
    assert checks.note(2, values(gradient=NAN)) is None  # still the same step
    assert checks.note(3, values(loss=NAN)) == NotFinite(2, "loss is NaN or infinite")
    assert checks.settle() == NotFinite(3, "loss is NaN or infinite")
    assert checks.settle() is None


def test_delayed_everything_noted_is_known_once_settled() -> None:
    checks = FiniteChecks(delayed=True)
    assert checks.note(7, values(loss=1.0)) is None
    assert checks.note(7, values(gradient=INFINITY)) is None
    assert checks.settle() == NotFinite(7, "gradient is NaN or infinite")


def test_values_of_any_type_and_with_gradient_are_noted() -> None:
    checks = FiniteChecks(delayed=False)
    noted = {"half": torch.tensor(1.0, dtype=torch.float16), "double": torch.tensor(1.0, dtype=torch.float64)}
    assert checks.note(1, noted | {"learned": torch.tensor(2.0, requires_grad=True)}) is None


class Spoiled(SoftTargets):
    """Soft targets whose value or gradient is spoiled at one call."""

    def __init__(self, call: int, *, value: float = 1.0, gradient: float = 1.0) -> None:
        super().__init__()
        self.call, self.value, self.gradient = call, value, gradient
        self.calls = 0

    def forward(self, *states: Any) -> dict[str, Tensor]:
        (loss,) = super().forward(*states).values()
        self.calls += 1
        if self.calls == self.call:
            loss = loss * self.value
            loss.register_hook(lambda gradient: gradient * self.gradient)
        return {"soft_targets": loss}


@pytest.fixture
def spoiled_run(new_run) -> Callable[..., Any]:
    """Factory: spoiled_run(call, value=..., gradient=..., **training) trains on Spoiled."""

    def make(call: int, *, value: float = 1.0, gradient: float = 1.0, **training: Any) -> Any:
        run = new_run(method="soft-targets", gradient_norm_steps=0, **training)
        loss = Spoiled(call, value=value, gradient=gradient)
        run.stages = [Stage("prediction", Objective([loss], {"soft_targets": 1.0}))]
        return run

    return make


@pytest.fixture
def scheduled(request: pytest.FixtureRequest, asynchronous: Callable[[], None]) -> None:
    """By request.param: "at once", as on a CPU, or "delayed", as on an accelerator."""
    if request.param == "delayed":
        asynchronous()


def weights_at_every_step(run: Any) -> list[Tensor]:
    """The classifier's weights before each forward pass of training."""
    found: list[Tensor] = []
    run.student.register_forward_pre_hook(lambda model, _: found.append(model.classifier.weight.detach().clone()))
    return found


@pytest.mark.parametrize("gradient", [NAN, INFINITY])
@pytest.mark.parametrize("limit", [1.0, 0.0], ids=["clipped", "not clipped"])
def test_a_bad_gradient_is_refused_before_the_optimizer_uses_it(spoiled_run, gradient: float, limit: float) -> None:
    run = spoiled_run(3, gradient=gradient, max_grad_norm=limit)
    seen = weights_at_every_step(run)
    with names(TrainingError, 3, "gradient"):
        run.go()
    assert len(seen) == 3
    assert torch.equal(run.student.classifier.weight, seen[-1])


@pytest.mark.parametrize(
    ("scheduled", "step", "saved"),
    [
        ("at once", STEPS_AN_EPOCH, "epoch"),
        ("at once", 2 * STEPS_AN_EPOCH, "no"),
        ("delayed", STEPS_AN_EPOCH, "no"),
        ("delayed", 2 * STEPS_AN_EPOCH, "epoch"),
        ("delayed", 2 * STEPS_AN_EPOCH, "no"),
    ],
    indirect=["scheduled"],
)
@pytest.mark.usefixtures("scheduled")
def test_a_bad_gradient_in_the_last_step_of_an_epoch_is_refused(spoiled_run, step: int, saved: str) -> None:
    """Where the last checkpoint is kept, nothing else would look at the student again."""
    run = spoiled_run(step, gradient=NAN, save_strategy=saved)
    with names(TrainingError, step, "gradient"):
        run.go()
    assert not list(run.folder.glob("checkpoints/*/finished"))
    assert_checkpoints_are_finite(run.folder)


def assert_checkpoints_are_finite(folder: Path) -> list[str]:
    files = sorted(folder.glob("checkpoints/*/checkpoint-*/model.safetensors"))
    for file in files:
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values()), file
    return [file.parent.name for file in files]


@pytest.mark.parametrize(
    ("scheduled", "step", "kind"),
    [
        ("at once", 1, "value"),
        ("at once", 4, "gradient"),
        ("at once", STEPS_AN_EPOCH, "value"),
        ("delayed", 1, "gradient"),
        ("delayed", 4, "value"),
        ("delayed", 4, "gradient"),
        ("delayed", STEPS_AN_EPOCH, "value"),
        ("delayed", STEPS_AN_EPOCH, "gradient"),
    ],
    indirect=["scheduled"],
)
@pytest.mark.usefixtures("scheduled")
def test_no_checkpoint_holds_nan_though_every_step_writes_one(spoiled_run, step: int, kind: str) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 20}
    run = spoiled_run(step, **{kind: NAN}, num_train_epochs=1, **saving)
    what = {"value": "soft_targets", "gradient": "gradient"}[kind]
    with names(TrainingError, step, what, *([f"checkpoint-{step - 1}"] if step > 1 else [])) as caught:
        run.go()
    assert ("checkpoint-" in str(caught.value)) == (step > 1)
    assert set(assert_checkpoints_are_finite(run.folder)) == {f"checkpoint-{number}" for number in range(1, step)}


@pytest.mark.parametrize("step", [3, STEPS_AN_EPOCH])
def test_the_step_is_named_although_it_is_noticed_later(spoiled_run, asynchronous, step: int) -> None:
    """In the middle of an epoch in the next step, at its end before the student is scored."""
    asynchronous()
    run = spoiled_run(step, value=NAN)
    seen = weights_at_every_step(run)
    with names(TrainingError, step, "soft_targets"):
        run.go(choose=True)
    assert len(seen) == (step + 1 if step < STEPS_AN_EPOCH else step)
    assert not list(run.folder.glob("checkpoints/*/checkpoint-*"))


@pytest.mark.parametrize("scheduled", ["at once", "delayed"], indirect=True)
@pytest.mark.usefixtures("scheduled")
def test_with_accumulation_the_step_of_the_optimizer_is_named(spoiled_run) -> None:
    run = spoiled_run(3, value=NAN, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    with names(TrainingError, 2, "soft_targets"):
        run.go()


def test_an_infinite_gradient_in_float16_only_lowers_the_loss_scale(
    tmp_path: Path, new_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no float16 training on a CPU: the trainer's own question alone is asked."""
    asked = []

    class Asked(DistillationTrainer):
        def train(self, *args: Any, **options: Any) -> None:
            self.create_accelerator_and_postprocess()
            for weight in self.model.parameters():
                weight.grad = torch.full_like(weight, INFINITY)
            for half in (True, False):
                self.args.fp16 = half
                asked.append(float(self._get_grad_norm(self.model)))

    monkeypatch.setattr(lesson, "DistillationTrainer", Asked)
    with names(TrainingError, 1, "gradient"):
        new_run(method="soft-targets").go()
    assert asked == [INFINITY]


def test_a_text_whose_states_are_not_finite_is_named_with_whose_they_are(new_run) -> None:
    run = new_run(method="soft-targets")
    texts = [run.tokenizer.decode(ids, skip_special_tokens=True) for ids in run.train["input_ids"]]
    row = texts.index(next(text for text in texts if texts.count(text) == 1))
    ids = run.train["input_ids"][row]
    forward = run.teacher.model.forward

    def spoiled(*args: Any, **inputs: Any) -> Any:
        outputs = forward(*args, **inputs)
        read = inputs["input_ids"].tolist()
        outputs.logits[[tokens[: len(ids)] == ids for tokens in read]] = NAN
        return outputs

    run.teacher.model.forward = spoiled
    with names(TrainingError, "soft_targets", "teacher", texts[row], "--training.skip_bad_batches"):
        run.go()


@pytest.mark.parametrize(("value", "gradient"), [(NAN, 1.0), (1.0, INFINITY)])
def test_bad_batches_are_left_out_and_counted_where_asked(spoiled_run, value: float, gradient: float) -> None:
    run = spoiled_run(3, value=value, gradient=gradient, skip_bad_batches=True)
    seen = weights_at_every_step(run)
    (stage,) = run.go()
    assert sum(entry.get("skipped_batches", 0) for entry in stage["log"]) == 1
    assert torch.equal(seen[2], seen[3])  # that batch has taught nothing
    assert not torch.equal(seen[3], seen[4])
    assert run.student.classifier.weight.isfinite().all()


def test_a_training_in_which_every_batch_is_bad_is_not_skipped_to_its_end(new_run) -> None:
    run = new_run(method="soft-targets", skip_bad_batches=True)
    with torch.no_grad():
        run.student.classifier.weight.fill_(NAN)
    with names(TrainingError, 11, "soft_targets", "student"):
        run.go()


def test_gradients_that_are_never_finite_are_not_skipped_to_the_end(new_run) -> None:
    """Every loss is finite: what counts is that no update came of it."""
    run = new_run(method="soft-targets", gradient_norm_steps=0, skip_bad_batches=True)
    loss = Spoiled(1)
    loss.forward = lambda *states: {"soft_targets": _without_gradient(*SoftTargets.forward(loss, *states).values())}
    run.stages = [Stage("prediction", Objective([loss], {"soft_targets": 1.0}))]
    with names(TrainingError, 11, "gradient"):
        run.go()


def _without_gradient(loss: Tensor) -> Tensor:
    loss.register_hook(lambda gradient: gradient * NAN)
    return loss
