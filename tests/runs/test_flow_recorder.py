from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from emdistill.methods.bert_emd import bert_emd
from emdistill.runs.flow_recorder import FlowRecorder
from emdistill.runs.flows import read_flows
from emdistill.states import EncoderShape, EncoderStates
from emdistill.training import Stage

STUDENT, TEACHER = EncoderShape(layers=2, width=4, heads=2), EncoderShape(layers=3, width=4, heads=2)


def states(shape: EncoderShape, seed: int) -> EncoderStates:
    draw = torch.Generator().manual_seed(seed)
    return EncoderStates(
        logits=torch.randn(2, 2, generator=draw),
        mask=torch.ones(2, 5, dtype=torch.long),
        embeddings=torch.randn(2, 5, shape.width, generator=draw),
        hidden=tuple(torch.randn(2, 5, shape.width, generator=draw) for _ in range(shape.layers)),
        attention_scores=tuple(torch.randn(2, shape.heads, 5, 5, generator=draw) for _ in range(shape.layers)),
    )


class Steps:
    """Plays the trainer: one pass of the objective, then the recorder, a step."""

    def __init__(self, recorder: FlowRecorder, stage: Stage, *, steps: int, flow_steps: int) -> None:
        self.recorder, self.stage = recorder, stage
        self.args: Any = SimpleNamespace(output_dir=f"run/checkpoints/{stage.name}", flow_steps=flow_steps)
        self.max_steps = steps

    def go(self, first: int = 1, last: int | None = None) -> None:
        state: Any = self.state(first - 1)
        self.recorder.on_train_begin(self.args, state, None)
        for step in range(first, (last or self.max_steps) + 1):
            self.stage.objective.train()(states(STUDENT, step), states(TEACHER, -step), {})
            self.recorder.on_step_end(self.args, self.state(step), None)

    def state(self, step: int) -> Any:
        return SimpleNamespace(global_step=step, max_steps=self.max_steps, is_world_process_zero=True)


def stages(**options: Any) -> list[Stage]:
    torch.manual_seed(0)
    return bert_emd(STUDENT, TEACHER, **options)


def test_flows_and_weights_are_those_of_the_mapping_at_that_step(tmp_path: Path) -> None:
    path = tmp_path / "flows.jsonl"
    (stage,) = stages()
    Steps(FlowRecorder(path, [stage]), stage, steps=7, flow_steps=3).go()
    records = read_flows(path)
    assert [record.step for record in records] == [1, 3, 6, 7]
    (loss,) = stage.objective.layer_losses()
    last = records[-1]
    assert last.stage == "joint"
    for name in ("attention_scores", "hidden_states"):
        torch.testing.assert_close(torch.tensor(last.flows[name]), loss.last_flows[name].float())
        torch.testing.assert_close(torch.tensor(last.student_weights[name]), loss.mapping.student_weights)
        torch.testing.assert_close(torch.tensor(last.teacher_weights[name]), loss.mapping.teacher_weights)
    assert last.student_weights["hidden_states"] == last.student_weights["attention_scores"]  # coupled


def test_separate_mappings_have_weights_of_their_own(tmp_path: Path) -> None:
    (stage,) = stages(coupled=False)
    Steps(FlowRecorder(tmp_path / "flows.jsonl", [stage]), stage, steps=2, flow_steps=1).go()
    last = read_flows(tmp_path / "flows.jsonl")[-1]
    assert last.student_weights["hidden_states"] != last.student_weights["attention_scores"]


@pytest.mark.parametrize("options", [{"hidden_states": 0}, {"attention_scores": 0}])
def test_a_term_that_is_off_has_no_flow(tmp_path: Path, options: dict[str, Any]) -> None:
    (stage,) = stages(**options)
    Steps(FlowRecorder(tmp_path / "flows.jsonl", [stage]), stage, steps=1, flow_steps=1).go()
    assert not options.keys() & read_flows(tmp_path / "flows.jsonl")[0].flows.keys()


def test_nothing_is_written_without_layer_terms_or_when_switched_off(tmp_path: Path) -> None:
    (stage,) = stages(hidden_states=0, attention_scores=0)
    Steps(FlowRecorder(tmp_path / "flows.jsonl", [stage]), stage, steps=2, flow_steps=1).go()
    (stage,) = stages()
    Steps(FlowRecorder(tmp_path / "flows.jsonl", [stage]), stage, steps=2, flow_steps=0).go()
    assert not (tmp_path / "flows.jsonl").exists()


def test_what_was_recorded_after_the_checkpoint_is_recorded_anew(tmp_path: Path) -> None:
    path = tmp_path / "flows.jsonl"
    (stage,) = stages()
    Steps(FlowRecorder(path, [stage]), stage, steps=9, flow_steps=2).go(last=7)
    assert [record.step for record in read_flows(path)] == [1, 2, 4, 6]
    Steps(FlowRecorder(path, [stage]), stage, steps=9, flow_steps=2).go(first=4)  # from a checkpoint of step 3
    assert [record.step for record in read_flows(path)] == [1, 2, 4, 6, 8, 9]


def test_stages_that_are_finished_keep_their_records(tmp_path: Path) -> None:
    path = tmp_path / "flows.jsonl"
    (joint,) = stages()
    first, second = Stage("first", joint.objective), Stage("second", joint.objective)
    recorder = FlowRecorder(path, [first, second])
    Steps(recorder, first, steps=3, flow_steps=1).go()
    Steps(recorder, second, steps=2, flow_steps=1).go()
    assert [(record.stage, record.step) for record in read_flows(path)] == [
        ("first", 1), ("first", 2), ("first", 3), ("second", 1), ("second", 2),
    ]  # fmt: skip
    Steps(recorder, first, steps=3, flow_steps=1).go(last=1)  # from scratch
    assert [(record.stage, record.step) for record in read_flows(path)] == [("first", 1)]
