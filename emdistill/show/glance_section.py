"""A report's first parts: what each model scores, costs and takes, and the verdict of the gate."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emdistill.console import ReportRow
from emdistill.errors import OutputError
from emdistill.runs.run_folder import RUN_FILE, read_run
from emdistill.ship.gate import judged_time
from emdistill.ship.gate_table import NAMES
from emdistill.show.charts import GREY, VARIANTS, latency_bars
from emdistill.show.page import Block, Chart, Items, Part, Row, Text, score_table

LABELS_ONLY = "hard-labels"
SAME = (
    "task", "text", "text_pair", "label", "kind", "augmented", "rows", "max_length", "select", "seed",
    "student", "student_birth", "student_source", "embedding_rank",
)  # fmt: skip
BUDGET = ("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps")


def glance_part(folder: Path, run: Mapping[str, Any], gate: Mapping[str, Any] | None) -> Part:
    """Scores, sizes and times of every model that there is, and the verdict of the gate."""
    if "task" not in run:
        return Part("At a glance", _glance_of_text(run))
    variants = gate["variants"] if gate else {}
    time, caption = _judged_latency(gate)
    rows = [
        ReportRow(name, run["scores"][name], run[name]["parameters"], run[name]["bytes"], time.get(name))
        for name in ("teacher", "student")
        if name in run["scores"]
    ]
    blocks: list[Block] = []
    if labels_only := _labels_only(folder, run):
        place, other = labels_only
        rows.append(
            ReportRow(
                "student, labels alone", other["scores"]["student"], other["student"]["parameters"],
                other["student"]["bytes"],
            )
        )  # fmt: skip
        blocks.append(Text(f"Labels alone: the run {place.name} beside this one.", "small"))
    elif run["config"]["method"] != LABELS_ONLY:
        blocks.append(
            Text(
                "No student of the labels alone stands beside this run: the same command with --method hard-labels, "
                "without its --objective options and --mapping, and with an --output beside it trains one, and "
                f"`emdistill report {_name(folder)}` shows it here.",
                "small",
            )
        )
    for name in ("onnx", "int8"):
        if name in variants:
            found = variants[name]
            rows.append(
                ReportRow(NAMES[name], found["scores"], run["student"]["parameters"], found["bytes"], time.get(name))
            )
    blocks = [score_table(rows, caption), *blocks]
    if gate is None:
        wanted = f"emdistill export {_name(folder)} --onnx --int8"
        blocks.append(Text(f"Latency, ONNX and int8 are not measured yet: `{wanted}`.", "small"))
    else:
        blocks += _verdict(gate)
    return Part("At a glance", blocks)


def latency_part(gate: Mapping[str, Any] | None) -> Part:
    """A chart for each batch size and length, so that each has its own scale."""
    if gate is None:
        return Part("Latency", [])
    cases = {(time["batch"], time["length"]): None for found in gate["variants"].values() for time in found["latency"]}
    charts = []
    for batch, length in sorted(cases):
        models = [
            (NAMES.get(name, name), VARIANTS.get(name, GREY), time)
            for name, variant in gate["variants"].items()
            for time in variant["latency"]
            if (time["batch"], time["length"]) == (batch, length)
        ]
        charts.append(Chart(f"batch {batch}, length {length}", latency_bars(models)))
    said = f"Bars: the median; whiskers: up to the 95th percentile. {_machine(gate)}; each chart has its own scale."
    return Part("Latency", [Text(said, "small"), Row(charts)] if charts else [])


def _glance_of_text(run: Mapping[str, Any]) -> list[Block]:
    """The loss on text that was not learned from, before and after."""
    losses, student = run.get("held_out_loss", {}), run["student"]
    rows = [
        ReportRow(name, losses[moment], student["parameters"], student["bytes"])
        for name, moment in (("student as born", "before"), ("student", "after"))
        if moment in losses
    ]
    held_out = run["rows"].get("held out", 0)
    return [score_table(rows), Text(f"The loss and its terms on {held_out:,} pieces not learned from.", "small")]


def _verdict(gate: Mapping[str, Any]) -> list[Block]:
    verdict, limits = gate["verdict"], gate["limits"]
    if verdict["go"]:
        said = f"Go: ship {NAMES.get(verdict['ship'], verdict['ship'])}."
    else:
        said = "No-go: no exported student keeps the limits."
    given = ", ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in limits.items() if value is not None)
    failures = [f"{NAMES.get(name, name)}: {why}" for name, found in verdict["failures"].items() for why in found]
    return [
        Text(said, "verdict go" if verdict["go"] else "verdict no-go"),
        Items([*([f"limits: {given}"] if given else []), *failures, *verdict["notes"]]),
    ]


def _judged_latency(gate: Mapping[str, Any] | None) -> tuple[dict[str, float], str]:
    """Milliseconds a call at batch 1 and the longest length, by variant, and where they were measured."""
    found = {}
    longest = 0
    for name, variant in (gate["variants"] if gate else {}).items():
        if time := judged_time(variant):
            found[name], longest = time["p50"], time["length"]
    return found, f"batch 1, length {longest}, {_machine(gate)}" if gate and found else ""


def _machine(gate: Mapping[str, Any]) -> str:
    machine = gate["machine"]
    threads = machine["threads"]
    return f"{threads} thread{'s' * (threads != 1)} on {machine['cpu']}"


def _labels_only(folder: Path, run: Mapping[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """The finished run of the same student on the same rows from the labels alone, in the same parent folder."""
    if run["config"]["method"] == LABELS_ONLY:
        return None
    here = folder.resolve()
    for path in sorted(here.parent.glob(f"*/{RUN_FILE}")):
        try:
            other: Any = read_run(path.parent)
        except (OutputError, OSError):
            continue  # another's broken run is no reason to have no page of this one
        if _is_finished(other) and other["config"].get("method") == LABELS_ONLY and _is_comparable(other, run):
            return path.parent, other
    return None


def _is_finished(run: Any) -> bool:
    """Whether this is the record of a finished distillation on a task."""
    sections = ("config", "hashes", "scores", "student", "task")
    return (
        isinstance(run, dict)
        and run.get("status") == "finished"
        and all(isinstance(run.get(section), dict) for section in sections)
        and "student" in run["scores"]
    )


def _is_comparable(other: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """The same teacher and data, the same student, the same budget."""
    budgets = [[each["config"].get("training", {}).get(name) for name in BUDGET] for each in (other, run)]
    return (
        _read_files(other) == _read_files(run)
        and budgets[0] == budgets[1]
        and all(other["config"].get(name) == run["config"].get(name) for name in SAME)
    )


def _read_files(run: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of teacher and data; a mapping's file is the method's own."""
    return {name: digest for name, digest in run["hashes"].items() if name != "mapping"}


def _name(folder: Path) -> str:
    return shlex.quote(folder.resolve().name)
