"""What a finished run tells people: the model card, the pictures, the page; all from the run folder's own record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emdistill.config import as_command, source_name
from emdistill.runs.flows import read_flows
from emdistill.show.figures import draw_flows, draw_layer_weights
from emdistill.show.model_card import CardFacts, DataFacts, model_card
from emdistill.show.run_report import write_run_report


def run_card(run: dict[str, Any]) -> str:
    """The model card of a run's student."""
    config, task = run["config"], run["task"]
    sets = list(task["evaluation_rows"])
    return model_card(
        CardFacts(
            name=Path(config["output"]).name,
            task=task["name"],
            description=task["description"],
            kind=task["kind"],
            labels=task["labels"],
            pairs=task["pairs"],
            student=_make(run),
            teacher=config["teacher"],
            method=source_name(config["method"]),
            equation="; ".join(run["objective"].values()),
            seed=run["seed"],
            settings=config["training"],
            data=[DataFacts(file["name"], file["rows"], file["sha256"]) for file in task["files"]],
            held_out=task["held_out"],
            teacher_scores=_by_set(run["scores"]["teacher"], sets),
            student_scores=_by_set(run["scores"]["student"], sets),
            checkpoint=run["selection"],
            teacher_parameters=run["teacher"]["parameters"],
            student_parameters=run["student"]["parameters"],
            teacher_size=run["teacher"]["bytes"],
            student_size=run["student"]["bytes"],
            max_length=config["max_length"],
            versions={name: run["versions"][name] for name in ("emdistill", "torch", "transformers")},
            command=as_command("distill", config),
        )
    )


def draw_run(folder: Path) -> None:
    """flows.png where the method maps layers, layer_weights.png where that mapping has any, and report.html."""
    flows = folder / "flows.jsonl"
    if flows.exists() and (records := read_flows(flows)):
        draw_flows(records, folder / "flows.png")
        if any(record.student_weights for record in records):  # a fixed mapping has none
            draw_layer_weights(records, folder / "layer_weights.png")
    write_run_report(folder)


def _make(run: dict[str, Any]) -> str:
    shape = run["student"]["shape"]
    return f"{shape['layers']} layers × {shape['width']} (--student {run['config']['student']})"


def _by_set(scores: dict[str, float], sets: list[str]) -> dict[str, dict[str, float]]:
    first, *others = sets
    return {first: {name: value for name, value in scores.items() if "/" not in name}} | {
        other: {name.removeprefix(f"{other}/"): value for name, value in scores.items() if name.startswith(f"{other}/")}
        for other in others
    }
