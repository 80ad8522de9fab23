"""Writes flows and layer weights down while training goes on."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from emdistill.runs.flows import FlowRecord, append_flows, truncate_flows
from emdistill.training import Stage


class FlowRecorder(TrainerCallback):
    """Appends the flows of every layer loss to `path` each `flow_steps` steps, and at a stage's last step."""

    def __init__(self, path: Path, stages: list[Stage]) -> None:
        self.path = path
        self.stages = stages

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget what was recorded after the checkpoint that training goes on from."""
        if not state.is_world_process_zero:
            return
        current = self._current(args)
        before = [stage.name for stage in self.stages[: self.stages.index(current)]]
        truncate_flows(self.path, state.global_step, stage=current.name, finished_stages=before)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step
        is_due = args.flow_steps and (step in (1, state.max_steps) or step % args.flow_steps == 0)
        if not (state.is_world_process_zero and is_due):
            return
        stage = self._current(args)
        flows, student_weights, teacher_weights = {}, {}, {}
        for name, loss, flow in stage.objective.flows():
            flows[name] = flow.tolist()
            mapping: Any = loss.mapping
            if getattr(mapping, "student_weights", None) is not None:  # a fixed mapping has none
                student_weights[name] = mapping.student_weights.tolist()
                teacher_weights[name] = mapping.teacher_weights.tolist()
        if flows:
            append_flows(self.path, FlowRecord(step, stage.name, flows, student_weights, teacher_weights))

    def _current(self, args: Any) -> Stage:
        return next(stage for stage in self.stages if stage.name == Path(args.output_dir).name)
