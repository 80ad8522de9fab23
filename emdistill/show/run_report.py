"""The page of one run, report.html, from what stands in its folder and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emdistill.config import as_command
from emdistill.errors import OutputError
from emdistill.runs.answers import PREDICTIONS, read_predictions
from emdistill.runs.flows import read_flows
from emdistill.runs.run_folder import read_gate, read_run
from emdistill.show.answer_section import class_part, disagreement_part, score_part
from emdistill.show.charts import DARK, lines
from emdistill.show.flow_section import flow_part, weights_part, words
from emdistill.show.glance_section import glance_part, latency_part
from emdistill.show.page import (
    Block,
    Chart,
    Command,
    Fold,
    Items,
    Part,
    Row,
    Table,
    Text,
    write_page,
)

REPORT = "report.html"
MOST_POINTS = 500
SECTIONS = {
    "Data": ("data", "task", "text", "text_pair", "label", "dev", "kind", "rows", "max_length", "augmented"),
    "Teacher and student": (
        "teacher", "check_teacher", "teacher_cache", "teacher_cache_folder",
        "student", "student_birth", "student_source", "embedding_rank",
    ),
    "Method": ("method", "mapping", "objective"),
    "Training": ("select", "seed", "training", "output", "keep_checkpoints"),
}  # fmt: skip


def write_run_report(folder: Path) -> Path:
    """Write RUN/report.html: scores and sizes, latency, losses, flows, answers, disagreement, configuration.

    What the run has not recorded is left out, or replaced by the command that would add it; runs of earlier versions
    are read too. Equal folders (and label-only runs beside them) give equal bytes.
    Raises OutputError for a folder without a distillation, DataError for a broken record in it.
    """
    run = read_run(folder)
    if "student" not in run:
        raise OutputError(f"{folder} holds no distillation; name a folder that `emdistill distill` wrote")
    path = folder / REPORT
    flows = folder / "flows.jsonl"
    records = read_flows(flows) if flows.exists() else []
    gate = read_gate(folder)
    stages, offsets = _stages(run)
    parts = [
        Part("", [Text(sentence) for sentence in _lead(run)]),
        glance_part(folder, run, gate),
        latency_part(gate),
        _losses(run, stages, offsets),
        *([flow_part(records, offsets), weights_part(records, offsets)] if records else []),
        *_answers(folder, run),
        _configuration(run),
    ]
    write_page(path, title=_title(run), parts=parts, dark=DARK)
    return path


def _title(run: Mapping[str, Any]) -> str:
    subject = run["task"]["name"] if "task" in run else "raw text"
    return f"{subject}: a {run['config']['method']} student"


def _lead(run: Mapping[str, Any]) -> list[str]:
    config, shape, above = run["config"], run["student"]["shape"], run["teacher"]["shape"]
    rows = run["rows"]["train"]
    time = run.get("timings", {}).get("training_seconds")
    sentences = [
        f"{shape['layers']} layers × {shape['width']} (--student {config['student']}), taught by "
        f"{above['layers']} layers × {above['width']} on {rows:,} {'rows' if 'task' in run else 'pieces of text'}; "
        f"{run['selection']}.",
        f"Seed {run['seed']}" + (f"; {time:,.0f} seconds of training." if time is not None else "."),
    ]
    if run.get("task", {}).get("held_out"):
        sentences.append(f"{run['task']['held_out']}.")
    return sentences if "log" in run else [*sentences, "This run has not finished; --resume goes on with it."]


def _stages(run: Mapping[str, Any]) -> tuple[list[tuple[str, int]], dict[str, int]]:
    """Each stage's name and the steps before it: steps are counted from 1 in every stage."""
    stages, before = [], 0
    for stage in run.get("log", []):
        stages.append((stage["stage"], before))
        before += max((entry.get("step", 0) for entry in stage["log"]), default=0)
    return stages, dict(stages)


def _losses(run: Mapping[str, Any], stages: Sequence[tuple[str, int]], offsets: Mapping[str, int]) -> Part:
    """Loss and terms, gradient norms, and the score by which checkpoints are chosen."""
    entries: list[tuple[int, dict[str, Any]]] = []
    for stage in run.get("log", []):
        # Lines break where a stage begins, for it has another objective.
        entries.append((offsets[stage["stage"]], {}))
        entries += [(offsets[stage["stage"]] + entry["step"], entry) for entry in stage["log"] if "step" in entry]
    terms = _series(entries, "terms/")
    loss = _series(entries, "loss", of="loss")
    shown = loss if len(terms) == 1 else loss | terms
    if not shown:
        return Part("Loss", [])
    positive = all(value is None or value > 0 for _, values in shown.values() for value in values)
    figure = lines(shown, x="step", y="loss", stages=stages, logarithmic=positive)
    said = "Each term with its weight: together they are the loss. A point is the mean since the one before."
    charts = []
    norms = _series(entries, "grad_norm", of="all terms together") | _series(entries, "gradient_norms/")
    if norms:
        charts.append(Chart("Gradient norms", lines(norms, x="step", y="norm", stages=stages)))
    metric = run["task"]["metrics"][0] if "task" in run else "loss"
    if scores := _series(entries, f"eval_{metric}", of=words(metric)):
        charts.append(
            Chart("Score while training", lines(scores, x="step", y=words(metric), stages=stages, from_zero=False))
        )
    equations = [f"{name}: {equation}" for name, equation in run["objective"].items()]
    return Part("Loss", [Items(equations), Chart("", figure, said if len(terms) > 1 else ""), Row(charts)])


def _series(
    entries: Sequence[tuple[int, Mapping[str, Any]]], prefix: str, *, of: str = ""
) -> dict[str, tuple[list[float], list[float | None]]]:
    """Values over the steps by name, for the names that begin so; what is not finite is left open.

    of   the one series' name, where `prefix` is a whole name and no beginning
    """
    names = {
        name: None for _, entry in entries for name in entry if name == prefix or (not of and name.startswith(prefix))
    }
    found = {}
    for name in names:
        points = [(step, entry.get(name)) for step, entry in entries if not entry or name in entry]
        every = math.ceil(len(points) / MOST_POINTS)
        kept = [(step, value) for place, (step, value) in enumerate(points) if value is None or place % every == 0]
        kept = kept if kept[-1] == points[-1] else [*kept, points[-1]]
        found[of or words(name.removeprefix(prefix))] = (
            [float(step) for step, _ in kept],
            [float(f"{value:.5g}") if _is_finite(value) else None for _, value in kept],
        )
    return found


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _answers(folder: Path, run: Mapping[str, Any]) -> list[Part]:
    if "task" not in run:
        return []
    path = folder / PREDICTIONS
    if not path.exists():
        said = (
            "The answers to each row were not kept: the command below with --overwrite keeps them, and this page "
            "then shows calibration, confusion and disagreement."
        )
        return [Part("Answers", [Text(said, "small")])] if "student" in run["scores"] else []
    found = next(iter(read_predictions(path).values()))
    labels = run["task"]["labels"]
    return [class_part(found, labels) if labels else score_part(found), disagreement_part(found, labels)]


def _configuration(run: Mapping[str, Any]) -> Part:
    config = run["config"]
    flat = {name: _flat(name, value) for name, value in config.items()}
    grouped = {title: [line for name in names for line in flat.get(name, [])] for title, names in SECTIONS.items()}
    known = {name for names in SECTIONS.values() for name in names}
    grouped["Further options"] = [line for name, lines in flat.items() if name not in known for line in lines]
    files = {file["name"]: f"{file['rows']:,}" for file in run.get("task", {}).get("files", [])}
    hashes = [[name, files.get(name, ""), digest] for name, digest in run["hashes"].items()]
    blocks: list[Block] = [
        Command(as_command("distill", config)),
        Text("Longer paths in the command are cut to their last part.", "small"),
        *(Fold(title, [Table(("option", "value"), lines, text=True)]) for title, lines in grouped.items()),
        Fold("Files read", [Table(("name", "rows", "SHA-256"), hashes, text=True)]),
        Fold("Versions", [Table(("package", "version"), [[*pair] for pair in run["versions"].items()], text=True)]),
    ]
    return Part("Configuration", blocks)


def _flat(name: str, value: Any) -> list[list[str]]:
    """[option, value] lines, sections opened: training.learning_rate."""
    if isinstance(value, dict):
        return [line for inner, item in value.items() for line in _flat(f"{name}.{inner}", item)]
    return [[name, "–" if value is None else json.dumps(value) if isinstance(value, bool) else str(value)]]
