"""What stands in a run folder, as the sections of its page read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emdistill.errors import DataError
from emdistill.runs.answers import PREDICTIONS, Predictions, read_predictions
from emdistill.runs.baseline_record import BaselineRecord, read_baselines
from emdistill.runs.distillation import Distillation, read_distillation
from emdistill.runs.flows import FlowRecord, read_flows
from emdistill.runs.gate_record import GateRecord, read_gate
from emdistill.runs.record import RUN_FILE
from emdistill.tasks.answers import flat

FLOWS = "flows.jsonl"


@dataclass(frozen=True)
class Contents:
    """A run's record, and what else it has left: gate, baselines, flows, the answers to the first development set.

    tasks  of several, what it has left of each
    """

    run: Distillation
    gate: GateRecord | None
    baselines: BaselineRecord | None
    flows: list[FlowRecord]
    answers: Predictions | None
    tasks: Mapping[str, "Contents"] = field(default_factory=dict)

    @property
    def stages(self) -> dict[str, int]:
        """Each stage, and the steps before it: steps are counted from 1 in every stage."""
        stages, before = {}, 0
        for stage in self.run.record.log:
            stages[stage.stage] = before
            before += max((entry["step"] for entry in stage.log if has_step(entry)), default=0)
        return stages


def read_contents(folder: Path) -> Contents:
    """Raises OutputError for a folder without a distillation or with a broken record, DataError for a broken line."""
    run = read_distillation(folder)
    flows = folder / FLOWS
    recorded = read_flows(flows) if flows.exists() else []
    tasks = {
        name: Contents(of_task, None, read_baselines(of_task.folder), [], _answers(of_task))
        for name, of_task in run.of_tasks.items()
    }
    return Contents(run, read_gate(folder), read_baselines(folder), recorded, _answers(run), tasks)


def _answers(run: Distillation) -> Predictions | None:
    path = run.folder / PREDICTIONS
    if run.task is None or not path.exists():
        return None
    answers = next(iter(read_predictions(path).values()))
    outputs, labels = flat(answers.student).shape[1], len(run.task.labels)
    if outputs != (labels or 1):
        raise DataError(f"its rows have {outputs} logits, but {RUN_FILE} names {labels} labels", file=path)
    return answers


def has_step(entry: dict[str, Any]) -> bool:
    """Whether an entry of a training log says at which step it was written."""
    return type(entry.get("step")) is int
