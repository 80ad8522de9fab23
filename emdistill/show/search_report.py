"""What a search tells people: a line per trial, the table, the record as JSON, and the page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import pstdev
from typing import Any

from emdistill.console import Table, counted, say_scores
from emdistill.files import write_json
from emdistill.search.genes import gene_name, gene_pairs
from emdistill.search.layer_mapping import SearchResult
from emdistill.search.shared_study import GeneTrial, Proposer
from emdistill.show.charts import progress
from emdistill.show.page import Chart, Command, Notes, Section, Text, Verdict, write_sections

SEARCHES: tuple[Proposer, ...] = ("genetic", "random")


def trial_line(trial: GeneTrial, result: SearchResult) -> str:
    """'0-3-6 (genetic): mrpc 0.7475, rte 0.5800; mean 0.6638, 31 s (12 of 125)'."""
    failed = trial.state == "failed"
    outcome = f"failed: {trial.error}" if failed else f"{say_scores(trial.scores)}; mean {trial.fitness:.4f}"
    effort = "known already" if trial.reused else f"{trial.seconds:.0f} s"
    place = f"({result.ended} of {result.planned})"
    return f"{gene_name(trial.gene)} ({trial.name or trial.proposer}): {outcome}, {effort} {place}"


def search_table(result: SearchResult) -> Table:
    """Heuristics and the best of each search: scores by task, their mean, and how many mappings that is the best of."""
    tasks = list(result.best.scores)
    lines = []
    for name, trial in _rows(result):
        count = 1 if trial.proposer == "heuristic" else len(result.finished(trial.proposer))
        scores = [f"{value:.4f}" for value in (*map(trial.scores.__getitem__, tasks), trial.fitness)]
        lines.append([name, gene_name(trial.gene), *scores, str(count)])
    return Table(["mapping", "gene", *tasks, "mean", "best of"], lines, words=(0, 1))


def search_notes(result: SearchResult) -> list[str]:
    """The notes below the table."""
    spread = _spread(result)
    failed = {trial.gene for trial in result.trials if trial.state == "failed"}
    return [
        "gene: a number per student layer, 0 where it is untaught, else its teacher layer counted from 1",
        f"{spread['genes']} of {result.space.size:,} mappings evaluated: their means lie between {spread['least']:.4f} "
        f"and {spread['greatest']:.4f}, with a standard deviation of {spread['standard_deviation']:.4f}",
        *([f"{counted(len(failed), 'mapping')} failed; the record of the trials says why"] if failed else []),
    ]


def write_record(path: Path, result: SearchResult, *, status: str, about: Mapping[str, Any]) -> None:
    """Write the search as JSON, whole or not at all: what was searched, the table, the spread, and every trial."""
    record = {
        "status": status,
        "about": dict(about),
        "space": asdict(result.space) | {"genes": result.space.size},
        "table": [{"mapping": name, **_plain(trial)} for name, trial in _rows(result)],
        "spread": _spread(result),
        "trials": [_plain(trial) for trial in result.trials],
    }
    write_json(path, record)


def write_search_report(path: Path, result: SearchResult, *, notes: Sequence[str], command: str) -> None:
    """Write the page: the best mapping in a sentence, the table, and the best so far over the mappings evaluated."""
    searches = {
        f"{proposer} search": [trial.fitness for trial in trials]
        for proposer in SEARCHES
        if (trials := result.finished(proposer))
    }
    levels = {trial.name: trial.fitness for trial in result.finished("heuristic")}
    figure = progress(searches, levels, x="different mappings evaluated", y="mean score of the short distillations")
    chart = Chart("", figure, "A dot per mapping; steps: the best so far; dashed: the usual mappings.")
    best = result.best
    name = f"{gene_name(best.gene)} ({best.name})" if best.name else gene_name(best.gene)
    judgement = Verdict(f"The best mapping is {name}, with a mean score of {best.fitness:.4f}.")
    luck = Text("The best of many is partly luck.")
    sections = [
        Section("", [judgement, search_table(result), Notes(notes)]),
        Section("The search", [chart]),
        Section("What it is worth, over seeds and on dev", [luck, Command(command)]),
    ]
    write_sections(path, f"Which layer should teach which: {', '.join(best.scores)}", sections)


def _rows(result: SearchResult) -> list[tuple[str, GeneTrial]]:
    """Each heuristic by its name, and the best of both searches."""
    best = {f"best of {proposer} search": result.best_of(proposer) for proposer in SEARCHES}
    rows = [(trial.name, trial) for trial in result.finished("heuristic")]
    return rows + [(name, trial) for name, trial in best.items() if trial is not None]


def _spread(result: SearchResult) -> dict[str, float | None]:
    """Of the means of all genes; None where none is known."""
    fitness = list(result.fitness.values())
    deviation = pstdev(fitness) if fitness else None
    ends = {"least": min(fitness, default=None), "greatest": max(fitness, default=None)}
    return {"genes": len(fitness), "standard_deviation": deviation, **ends}


def _plain(trial: GeneTrial) -> dict[str, Any]:
    fitness = trial.fitness if trial.state == "finished" else None
    return asdict(trial) | {"gene": gene_name(trial.gene), "pairs": gene_pairs(trial.gene), "fitness": fitness}
