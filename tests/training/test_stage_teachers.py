"""The teacher cache in a run: the teacher is asked once a sentence, and the student is the one it would have taught."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from emdistill import DistillationArguments
from emdistill.errors import CacheError
from emdistill.losses import AttentionScoreCosts, HiddenStateCosts, LayerLoss, Objective, Projection, SoftTargets
from emdistill.mapping import FixedMapping, LayerMapping, uniform_mapping
from emdistill.models.encoder import encoder_shape
from emdistill.models.teacher import Teacher
from emdistill.models.teacher_cache import TeacherCache
from emdistill.states import EncoderStates
from emdistill.training import Stage
from emdistill.training.run_stages import Interrupted
from emdistill.training.stage_teachers import stage_teachers
from emdistill.training.trainer import DistillationTrainer

ROWS, BATCHES = 48, 6  # an epoch, in batches of 8
TWO_PHASES = {"schedule": "two-phase", "intermediate_share": 0.5, "intermediate_learning_rate": 1e-3}


class CountingTeacher(Teacher):
    """Notes what each of its passes was asked for, and for how many sentences; `row` must not reach its model."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.passes: list[tuple[frozenset[str], int]] = []

    def __call__(self, inputs: Any, needs: Any = (), layers: Any = None) -> EncoderStates:
        self.passes.append((frozenset(needs), len(inputs["input_ids"])))
        return super().__call__(inputs, needs, layers)


@pytest.fixture
def cached_run(new_run) -> Any:
    """Factory: cached_run(cache, ...) is a new_run that counts its teacher's passes and keeps `row` from all models."""

    def make(cache: str, name: str | None = None, **options: Any) -> Any:
        run = new_run(name or cache, **options)
        run.cache, run.teacher = cache, CountingTeacher(run.teacher.model)

        def refuse_row(model: Any, _: Any, inputs: dict[str, Any]) -> None:
            assert "row" not in inputs
            assert "labels" not in inputs

        for model in (run.student, run.teacher.model):
            model.register_forward_pre_hook(refuse_row, with_kwargs=True)
        return run

    return make


class AtStep(TrainerCallback):
    """Presses Ctrl-C when a step of a stage begins."""

    def __init__(self, step: int, stage: str) -> None:
        self.step, self.stage = step, stage

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.output_dir.endswith(self.stage) and state.global_step == self.step:
            signal.raise_signal(signal.SIGINT)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    tensors, others = one.state_dict(), other.state_dict()
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


def assert_close(one: torch.nn.Module, other: torch.nn.Module, tolerance: float) -> None:
    """All weights but the keys' biases, whose gradient is rounding alone: softmax does not see them."""
    for (name, weight), other_weight in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if not name.endswith("key.bias"):
            torch.testing.assert_close(weight, other_weight, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("cache", ["logits", "states"])
def test_soft_targets_need_each_sentence_once_and_train_the_same_student(cached_run, cache: str) -> None:
    live, cached = (cached_run(c, method="soft-targets", num_train_epochs=3) for c in ("none", cache))
    live.go()
    cached.go()
    assert len(live.teacher.passes) == 3 * BATCHES
    assert sum(rows for _, rows in cached.teacher.passes) == ROWS
    assert not any(needs for needs, _ in cached.teacher.passes)
    assert_close(cached.student, live.student, 1e-5)


def test_a_second_run_over_a_cache_asks_the_teacher_nothing(cached_run) -> None:
    first, second = (cached_run("logits", "shared", method="soft-targets") for _ in range(2))
    first.go()
    second.go()
    assert second.teacher.passes == []
    assert same(first.student, second.student)


def test_cached_states_begin_with_the_same_losses_in_half_precision(cached_run) -> None:
    live, cached = (cached_run(cache, logging_steps=1, flow_steps=1) for cache in ("none", "states"))
    (first,), (second,) = live.go(), cached.go()
    before, after = first["log"][0], second["log"][0]
    names = [name for name in before if name == "loss" or name.startswith("terms/")]
    assert len(names) == 5
    for name in names:
        assert after[name] == pytest.approx(before[name], rel=1e-3), name
    assert after["loss"] != before["loss"]  # half precision was read
    assert after["terms/soft_targets"] == pytest.approx(before["terms/soft_targets"], rel=1e-6)
    assert sum(rows for _, rows in cached.teacher.passes) == ROWS
    assert_close(cached.student, live.student, 2e-2)


def test_phases_that_read_predictions_alone_never_run_the_teacher(cached_run) -> None:
    """Cached first, then live in the intermediate phase, never in the prediction phase."""
    run = cached_run("logits", objective=TWO_PHASES, num_train_epochs=4)
    run.go()
    asked = [needs for needs, _ in run.teacher.passes]
    states = {"hidden", "attention", "embeddings"}
    caching = len(asked) - 2 * BATCHES
    assert asked == [frozenset()] * caching + [frozenset(states)] * 2 * BATCHES
    assert sum(rows for needs, rows in run.teacher.passes if not needs) == ROWS
    live = cached_run("none", objective=TWO_PHASES, num_train_epochs=4)
    live.go()
    assert len(live.teacher.passes) == 4 * BATCHES
    assert_close(run.student, live.student, 1e-5)


@pytest.mark.parametrize(
    ("cache", "options", "stage", "step"),
    [
        ("logits", {"method": "soft-targets"}, "prediction", 8),
        ("states", {}, "joint", 3),
        ("states", {"tokens_per_batch": 80}, "joint", 3),
        ("logits", {"objective": TWO_PHASES, "num_train_epochs": 4}, "prediction", 7),
        ("states", {"objective": TWO_PHASES, "num_train_epochs": 4}, "intermediate", 4),
    ],
)
def test_a_cached_run_is_resumed_as_if_uninterrupted(
    cached_run, cache: str, options: dict[str, Any], stage: str, step: int
) -> None:
    whole = cached_run(cache, "whole", **options)
    whole.go()
    with pytest.raises(Interrupted):
        cached_run(cache, "parts", **options).go(callbacks=(AtStep(step, stage),))
    resumed = cached_run(cache, "parts", **options)
    resumed.go(resume=True)
    assert not [1 for needs, _ in resumed.teacher.passes if not needs]  # the cache is found again
    assert same(whole.student, resumed.student)
    for one, other in zip(whole.stages, resumed.stages, strict=True):
        # of a finished stage the student alone is kept
        assert same(one.objective, other.objective) or (one.name, stage) == ("intermediate", "prediction")


def use_mapping(run: Any, mapping: LayerMapping) -> list[tuple[EncoderStates, EncoderStates]]:
    """Hidden states, scores and predictions over one mapping; gives what its objective is shown in training."""
    losses = [LayerLoss([HiddenStateCosts(), AttentionScoreCosts()], mapping), SoftTargets()]
    weights = {"hidden_states": 1.0, "attention_scores": 1.0, "soft_targets": 1.0}
    torch.manual_seed(0)
    objective = Objective(losses, weights, Projection(encoder_shape(run.student), run.teacher.shape, "shared"))
    run.stages = [Stage("joint", objective)]
    seen: list[tuple[EncoderStates, EncoderStates]] = []
    objective.register_forward_pre_hook(lambda _, given: seen.append(given[:2]))
    return seen


def recorded(states: EncoderStates) -> tuple[set[int], set[int]]:
    """The layers whose hidden states, and whose scores, there are."""
    kinds = (states.hidden, states.attention_scores)
    hidden, scores = ({layer for layer, found in enumerate(kind) if found is not None} for kind in kinds)
    return hidden, scores


def test_a_uniform_mapping_captures_and_caches_its_layers_alone(cached_run) -> None:
    """Two student layers of three: the first learns from layer 0, the second from layer 2, layer 1 teaches nothing."""
    outcomes = []
    for cache in ("none", "states"):
        run = cached_run(cache, flow_steps=5)
        seen = use_mapping(run, uniform_mapping(2, 3))
        run.go()
        assert len(seen) == 2 * BATCHES
        for student, teacher in seen:
            assert recorded(student) == ({0, 1}, {0, 1})
            assert recorded(teacher) == ({0, 2}, {0, 2})
            assert len(teacher.hidden) == len(teacher.attention_scores) == 3
        files = {path.name for path in run.folder.glob("teacher_cache/*/*.bin")}
        parts = {f"{kind}-{layer}.bin" for kind in ("hidden", "attention") for layer in (0, 2)}
        assert files == (parts | {"logits.bin"} if cache == "states" else set())
        outcomes.append(run.student)
    assert_close(outcomes[1], outcomes[0], 2e-2)


def test_a_student_layer_without_flow_is_not_captured(cached_run) -> None:
    run = cached_run("none", num_train_epochs=1)
    seen = use_mapping(run, FixedMapping(torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.5]])))
    run.go()
    assert {(tuple(recorded(s)[0]), tuple(recorded(t)[1])) for s, t in seen} == {((1,), (0, 2))}


@pytest.mark.parametrize(
    ("cache", "objective", "kinds"),
    [
        ("none", TWO_PHASES, [CountingTeacher, CountingTeacher]),
        ("logits", TWO_PHASES, [CountingTeacher, TeacherCache]),
        ("states", TWO_PHASES, [TeacherCache, TeacherCache]),
        ("logits", {}, [CountingTeacher]),
        ("states", {}, [TeacherCache]),
        ("states", {**TWO_PHASES, "alpha": 0.0}, [TeacherCache, type(None)]),
    ],
)
def test_what_teaches_each_stage(
    cached_run, cache: str, objective: dict[str, Any], kinds: list[type], tmp_path: Any
) -> None:
    run = cached_run(cache, objective=objective)
    teachers = stage_teachers(
        run.stages, run.teacher, run.train, run.tokenizer, cache=cache, folder=tmp_path / "teacher_cache"
    )
    assert [type(teacher) for teacher in teachers] == kinds
    assert (tmp_path / "teacher_cache").exists() == (TeacherCache in kinds)


def test_a_cache_of_other_examples_is_refused_by_the_first_batch_that_differs(cached_run, tmp_path: Any) -> None:
    run = cached_run("logits", method="soft-targets")
    (cache,) = stage_teachers(run.stages, run.teacher, run.train, run.tokenizer, cache="logits", folder=tmp_path)
    trainer = DistillationTrainer(
        run.student,
        teacher=cache,
        objective=run.stages[0].objective,
        args=DistillationArguments(str(tmp_path / "out"), use_cpu=True, report_to="none", disable_tqdm=True),
        processing_class=run.tokenizer,
        train_dataset=run.train.select(range(ROWS - 1, -1, -1)),
    )
    with pytest.raises(CacheError, match="batches must be made of the very examples that the cache was opened with"):
        trainer.train()
