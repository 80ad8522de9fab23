"""What a search tells people: a line a trial, the table, the record as JSON, and the picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from statistics import pstdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.table import Table
from rich.text import Text

from emdistill.files import write_whole
from emdistill.search.genes import gene_name, gene_pairs
from emdistill.search.layer_mapping import SearchResult
from emdistill.search.shared_study import GeneTrial, Proposer

SEARCHES: dict[Proposer, str] = {"genetic": "#3f83bd", "random": "#c0712b"}  # with their colours
INK, FAINT = "#2f3437", "#dfe3e7"


def trial_line(trial: GeneTrial, result: SearchResult) -> str:
    """'0-3-6 (genetic): mrpc 0.7475, rte 0.5800; mean 0.6638, 31 s (12 of 125)'."""
    if trial.state == "failed":
        outcome = f"failed: {trial.error}"
    else:
        outcome = ", ".join(f"{task} {score:.4f}" for task, score in trial.scores.items())
        outcome += f"; mean {trial.fitness:.4f}"
    effort = "known already" if trial.reused else f"{trial.seconds:.0f} s"
    place = f"({result.ended} of {result.planned})"
    return f"{gene_name(trial.gene)} ({trial.name or trial.proposer}): {outcome}, {effort} {place}"


def search_table(result: SearchResult) -> Table:
    """Heuristics and the best of each search: scores by task, their mean, and how many mappings that is the best of."""
    tasks = list(result.best.scores)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("mapping")
    table.add_column("gene")
    for heading in (*tasks, "mean", "best of"):
        table.add_column(heading, justify="right")
    for name, trial in _rows(result):
        count = 1 if trial.proposer == "heuristic" else len(result.finished(trial.proposer))
        scores = [f"{value:.4f}" for value in (*(trial.scores[task] for task in tasks), trial.fitness)]
        table.add_row(*map(Text, (name, gene_name(trial.gene), *scores, str(count))))
    return table


def search_notes(result: SearchResult) -> list[str]:
    """What is to be said under the table."""
    fitness = list(result.fitness.values())
    failed = {trial.gene for trial in result.trials if trial.state == "failed"}
    return [
        "gene: a number a student layer, 0 where it is untaught, else its teacher layer counted from 1",
        f"{len(fitness)} of {result.space.size:,} mappings evaluated: their means lie between {min(fitness):.4f} and "
        f"{max(fitness):.4f}, with a standard deviation of {pstdev(fitness):.4f}",
        *([f"{len(failed)} mappings could not be evaluated; the record of their trials says why"] if failed else []),
    ]


def write_record(path: Path, result: SearchResult, *, status: str, about: Mapping[str, Any]) -> None:
    """Write the search as JSON, whole or not at all: what was searched, the table, the spread, and every trial."""
    fitness = list(result.fitness.values())
    record = {
        "status": status,
        "about": dict(about),
        "space": asdict(result.space) | {"genes": result.space.size},
        "table": [{"mapping": name, **_plain(trial)} for name, trial in _rows(result)],
        "spread": {
            "genes": len(fitness),
            "standard_deviation": pstdev(fitness) if fitness else None,
            "least": min(fitness, default=None),
            "greatest": max(fitness, default=None),
        },
        "trials": [_plain(trial) for trial in result.trials],
    }
    write_whole(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def draw_search(result: SearchResult, path: Path) -> None:
    """Draw the best mean so far against different mappings evaluated, for both searches; heuristics as lines."""
    figure = Figure(figsize=(7.2, 4.2), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for proposer, color in SEARCHES.items():
        if fitness := [trial.fitness for trial in result.finished(proposer)]:
            counts = range(1, len(fitness) + 1)
            axes.plot(counts, fitness, ".", color=color, alpha=0.4, markersize=5)
            label = f"{proposer} search, best so far"
            axes.step(counts, list(accumulate(fitness, max)), where="post", color=color, linewidth=1.8, label=label)
    _draw_heuristics(axes, result)
    axes.set_xlabel("different mappings evaluated", fontsize=8.5, color=INK)
    axes.set_ylabel("mean score of the short distillations", fontsize=8.5, color=INK)
    axes.tick_params(labelsize=7.5, length=2, color=INK, labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7.5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, labelcolor=INK)
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw_heuristics(axes: Axes, result: SearchResult) -> None:
    """A line at each heuristic's mean; its name stands beside the axes, where no point of the searches lies."""
    names: dict[float, list[str]] = {}
    for trial in result.finished("heuristic"):
        names.setdefault(trial.fitness, []).append(trial.name)
    least, most = axes.get_ylim()
    lowest = -math.inf
    for fitness, equal in sorted(names.items()):
        axes.axhline(fitness, color=INK, linewidth=0.7, linestyle=(0, (4, 3)), alpha=0.6)
        lowest = max(fitness, lowest + 0.035 * (most - least))  # names do not overlap
        place = (1.01, lowest)
        axes.annotate(", ".join(equal), place, xycoords=("axes fraction", "data"), fontsize=7, color=INK, va="center")


def _rows(result: SearchResult) -> list[tuple[str, GeneTrial]]:
    """Each heuristic by its name, and the best of both searches."""
    rows = [(trial.name, trial) for trial in result.finished("heuristic")]
    for proposer in SEARCHES:
        best = result.best_of(proposer)
        if best is not None:
            rows.append((f"best of {proposer} search", best))
    return rows


def _plain(trial: GeneTrial) -> dict[str, Any]:
    fitness = trial.fitness if trial.state == "finished" else None
    places = {"gene": gene_name(trial.gene), "pairs": gene_pairs(trial.gene), "fitness": fitness}
    return asdict(trial) | places
