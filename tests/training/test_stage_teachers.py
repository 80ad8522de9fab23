"""The teacher cache in a run: the teacher is asked once a sentence, and the student is the one it would have taught."""

import re
from typing import Any

import pytest
import torch
from messages import names
from training_runs import ROWS, STEPS_AN_EPOCH, TWO_PHASES, AtStep, CountingTeacher, assert_close, assert_same_outcome

from emdistill import DistillationArguments
from emdistill.errors import CacheError
from emdistill.losses import AttentionScoreCosts, HiddenStateCosts, LayerLoss, Objective, Projection, SoftTargets
from emdistill.mapping import FixedMapping, LayerMapping, uniform_mapping
from emdistill.models.encoder import encoder_shape
from emdistill.models.teacher_cache import TeacherCache
from emdistill.states import EncoderStates
from emdistill.training import Stage
from emdistill.training.run_stages import Interrupted
from emdistill.training.stage_teachers import stage_teachers
from emdistill.training.trainer import DistillationTrainer


@pytest.mark.parametrize("cache", ["logits", "states"])
def test_soft_targets_need_each_sentence_once_and_train_the_same_student(finished_run, cache: str) -> None:
    live, cached = (finished_run(cache=kind, method="soft-targets") for kind in ("none", cache))
    assert len(live.teacher.passes) == 2 * STEPS_AN_EPOCH
    assert cached.teacher.sentences() == ROWS
    assert not any(needs for needs, _ in cached.teacher.passes)
    assert_close(cached.student, live.student, 1e-5)


def test_a_second_run_over_a_cache_asks_the_teacher_nothing(new_run, finished_run) -> None:
    """The first run is stopped as soon as it has its cache."""
    settings = {"cache": "logits", "method": "soft-targets"}
    with pytest.raises(Interrupted):
        new_run(**settings).go(AtStep(0))
    second = new_run(**settings)
    second.go()
    assert second.teacher.passes == []
    assert_same_outcome(finished_run(**settings), second)


def test_cached_states_begin_with_the_same_losses_in_half_precision(finished_run) -> None:
    live, cached = finished_run(), finished_run(cache="states")
    before, after = (run.log[0]["log"][0] for run in (live, cached))
    terms = [name for name in before if name == "loss" or name.startswith("terms/")]
    assert len(terms) == 5
    for name in terms:
        assert after[name] == pytest.approx(before[name], rel=1e-3), name
    assert after["loss"] != before["loss"]  # half precision was read
    assert after["terms/soft_targets"] == pytest.approx(before["terms/soft_targets"], rel=1e-6)
    assert cached.teacher.sentences() == ROWS
    assert_close(cached.student, live.student, 2e-2)


def test_phases_that_read_predictions_alone_never_run_the_teacher(finished_run) -> None:
    """Cached first, then live in the intermediate phase, never in the prediction phase."""
    run, live = (finished_run(cache=cache, objective=TWO_PHASES) for cache in ("logits", "none"))
    asked = [needs for needs, _ in run.teacher.passes]
    states = {"hidden", "attention", "embeddings"}
    caching = len(asked) - STEPS_AN_EPOCH
    assert asked == [frozenset()] * caching + [frozenset(states)] * STEPS_AN_EPOCH
    assert sum(len(ids) for needs, ids in run.teacher.passes if not needs) == ROWS
    assert len(live.teacher.passes) == 2 * STEPS_AN_EPOCH
    assert_close(run.student, live.student, 1e-5)


@pytest.mark.parametrize(
    ("cache", "options", "stage", "step"),
    [
        ("logits", {"method": "soft-targets"}, "prediction", 8),
        ("states", {"tokens_per_batch": 80}, "joint", 3),
        ("logits", {"objective": TWO_PHASES}, "prediction", 4),
        ("states", {"objective": TWO_PHASES}, "intermediate", 4),
    ],
)
def test_a_cached_run_is_resumed_as_if_uninterrupted(
    new_run, finished_run, cache: str, options: dict[str, Any], stage: str, step: int
) -> None:
    with pytest.raises(Interrupted):
        new_run(cache=cache, **options).go(AtStep(step, stage))
    resumed = new_run(cache=cache, **options)
    resumed.go(resume=True)
    assert not [1 for needs, _ in resumed.teacher.passes if not needs]  # the cache is found again
    earlier = "intermediate" if stage == "prediction" else None
    assert_same_outcome(finished_run(cache=cache, **options), resumed, resumed_after=earlier)


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


def test_a_uniform_mapping_captures_and_caches_its_layers_alone(new_run) -> None:
    """Two student layers of three: the first learns from layer 0, the second from layer 2, layer 1 teaches nothing."""
    outcomes = []
    for cache in ("none", "states"):
        run = new_run(cache, cache=cache)
        seen = use_mapping(run, uniform_mapping(2, 3))
        run.go()
        assert len(seen) == 2 * STEPS_AN_EPOCH
        for student, teacher in seen:
            assert recorded(student) == ({0, 1}, {0, 1})
            assert recorded(teacher) == ({0, 2}, {0, 2})
            assert len(teacher.hidden) == len(teacher.attention_scores) == 3
        files = {path.name for path in run.folder.glob("teacher_cache/*/*.bin")}
        parts = {f"{kind}-{layer}.bin" for kind in ("hidden", "attention") for layer in (0, 2)}
        assert files == (parts | {"logits.bin"} if cache == "states" else set())
        outcomes.append(run.student)
    assert_close(outcomes[1], outcomes[0], 2e-2)


def test_a_student_layer_without_flow_is_not_captured(new_run) -> None:
    run = new_run(num_train_epochs=1)
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
    new_run, cache: str, objective: dict[str, Any], kinds: list[type], tmp_path: Any
) -> None:
    run = new_run(objective=objective)
    teachers = stage_teachers(
        run.stages, run.teacher, run.train, run.tokenizer, cache=cache, folder=tmp_path / "teacher_cache"
    )
    assert [type(teacher) for teacher in teachers] == kinds
    assert (tmp_path / "teacher_cache").exists() == (TeacherCache in kinds)


def test_a_cache_of_other_examples_is_refused_by_the_first_batch_that_differs(new_run, tmp_path: Any) -> None:
    run = new_run(method="soft-targets")
    (cache,) = stage_teachers(run.stages, run.teacher, run.train, run.tokenizer, cache="logits", folder=tmp_path)
    trainer = DistillationTrainer(
        run.student,
        teacher=cache,
        objective=run.stages[0].objective,
        args=DistillationArguments(str(tmp_path / "out"), use_cpu=True, report_to="none", disable_tqdm=True),
        processing_class=run.tokenizer,
        train_dataset=run.train.select(range(ROWS - 1, -1, -1)),
    )
    with names(CacheError, re.compile(r"example \d+")):
        trainer.train()
