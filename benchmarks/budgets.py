"""Does `emdistill compress` keep its budgets? A search per budget; what it delivers is measured again in the end.

    python benchmarks/budgets.py --teacher teacher/ --data train.jsonl --dev dev.jsonl --unlabelled more.txt \\
        --output budgets

Each budget has a folder OUTPUT/BUDGET, with the search's own page; what is finished is not searched again. Then every
delivered file is timed anew, in turns with the others, on one text of 128 tokens drawn at random. The table has the
milliseconds (95th percentile) that the search predicted, measured and that came out now, and whether the budget is kept
by the last. `--rivals` are students trained whole in one more search without limits, to stand beside the front.
Written to OUTPUT/budgets.md and budgets.json.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from jsonargparse import auto_cli

from emdistill.commands.compress import compress
from emdistill.console import Table, markdown
from emdistill.runs.baseline_record import TITLES
from emdistill.runs.compression import CompressionRecord, FormRow
from emdistill.runs.search_record import Form, read_search
from emdistill.search.budget import Cost, read_budget
from emdistill.ship.latency import summarise, time_in_turns
from emdistill.ship.onnx_folder import INT8, MODEL
from emdistill.ship.operator_table import graph_call
from emdistill.show.pareto import pareto_front

BUDGETS = "0.2ms 14MB;0.7ms 4MB;0.7ms 8MB;1ms 15MB;1.5ms 10MB;2ms 20MB;3ms 13MB;3.5ms 30MB;5ms 18MB;25MB"
TOKENS, UNLIMITED = 128, "1s"


@dataclass(frozen=True)
class Row:
    """One search; student is '' where nothing keeps the budget. Milliseconds are 95th percentiles, but for `median`.

    form            '' of a baseline, which is not timed again
    again, median   of the last measurement
    """

    budget: str
    tfidf: float
    minutes: float
    student: str = ""
    form: str = ""
    score: float = 0.0
    predicted: float = 0.0
    measured: float = 0.0
    again: float = 0.0
    median: float = 0.0
    mb: float = 0.0
    keeps: bool = False


def main(
    teacher: str,
    data: str,
    dev: str,
    output: str,
    unlabelled: str | None = None,
    unlabelled_rows: int | None = None,
    text: str = "text",
    label: str = "label",
    budgets: str = BUDGETS,
    rivals: str = "3 4x312",
    hours: float = 0.15,
    finals: int = 2,
    threads: int = 1,
) -> None:
    """Search, measure again, and write the table.

    Args:
        teacher: folder of a fine-tuned teacher.
        data: labelled rows.
        dev: the rows that score.
        output: folder of all searches.
        unlabelled: text without labels.
        unlabelled_rows: learn from at most so many of it.
        text: column of the text.
        label: column of the label.
        budgets: separated by semicolons.
        rivals: students beside the front, separated by spaces; '' for none.
        hours: of each search.
        finals: students trained whole, per search.
        threads: CPU threads of a student.
    """
    folder, searches = Path(output), dict[str, CompressionRecord]()
    shared: dict[str, Any] = {
        "teacher": teacher, "data": data, "dev": dev, "unlabelled": unlabelled, "unlabelled_rows": unlabelled_rows,
        "text": text, "label": label, "hours": hours, "threads": threads,
    }  # fmt: skip
    for budget in budgets.split(";"):
        place = folder_of(folder, budget)
        options = {**shared, "budget": budget.replace(" ", ", "), "output": str(place), "finals": finals}
        searches[budget] = read_finished(place) or compress(**options)
    rows = measured_again(folder, searches, threads)
    headings = ["budget", "student", "form", "score", "TF-IDF", "predicted", "measured", "again", "its median", "MB"]
    table = Table([*headings, "kept", "minutes"], [line(row) for row in rows], words=range(3))
    parts = ["## Budgets, 95th percentile in ms\n", markdown(table)]
    errors = [abs(row.predicted / row.again - 1) for row in rows if row.form] or [0.0]
    kept = f"{sum(row.keeps for row in rows)} of {len(rows)} kept"
    parts.append(f"\n{kept}; predictions are off by {median(errors):.0%} (median), {max(errors):.0%} at most.")
    everyone = list(searches.values())
    if rivals:
        place = folder / "rivals"
        whole = {"students": rivals, "finals": 2 * len(rivals.split()), "hours": 4 * hours}  # by each of two methods
        options = {**shared, **whole, "budget": UNLIMITED, "output": str(place)}
        everyone.append(read_finished(place) or compress(**options))
    title = "\n## All that was trained whole or learned without a teacher, by milliseconds\n"
    parts += [title, markdown(front(everyone))]
    (folder / "budgets.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
    (folder / "budgets.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    print("\n".join(parts))


def read_finished(place: Path) -> CompressionRecord | None:
    """The search that stands there, if it came to its end."""
    record = read_search(place, CompressionRecord)
    return record if record is not None and record.status == "finished" else None


def measured_again(folder: Path, searches: dict[str, CompressionRecord], threads: int) -> list[Row]:
    """A row per search, its delivered file timed in turns with all others."""
    ids = np.random.default_rng(0).integers(100, 1000, size=(1, TOKENS))  # in every vocabulary, however pruned
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    students = {budget: record for budget, record in searches.items() if record.delivered in record.candidates}
    delivered = {budget: delivered_form(record) for budget, record in students.items()}
    files = {
        budget: folder_of(folder, budget) / "model" / (INT8 if form == "int8" else MODEL)
        for budget, (form, _) in delivered.items()
    }
    calls = {budget: graph_call(file, inputs, threads) for budget, file in files.items()}
    times = time_in_turns(calls, rounds=40, seconds=10.0)
    latencies = {budget: summarise(taken, 1) for budget, taken in times.items()}
    rows = []
    for budget, record in searches.items():
        row = Row(budget, record.baselines["tfidf"].score or 0.0, record.spent / 60)
        if record.delivered in record.baselines:
            baseline = record.baselines[record.delivered]
            assert baseline.cost is not None  # it keeps the budget
            name, ms, mb = TITLES[record.delivered], baseline.cost.ms, baseline.cost.mb
            row = replace(row, student=name, score=baseline.score or 0.0, measured=ms, mb=mb, keeps=True)
        elif record.delivered:
            form, measured = delivered[budget]
            again, mb = latencies[budget], files[budget].stat().st_size / 1e6
            row = replace(
                row, student=record.delivered, form=form, score=measured.score or 0.0, measured=measured.p95,
                predicted=record.candidates[record.delivered].predicted[form].p95, again=again.p95, median=again.p50,
                mb=mb, keeps=read_budget(record.budget).keeps(Cost(again.p95, mb)),
            )  # fmt: skip
        rows.append(row)
    return rows


def delivered_form(record: CompressionRecord) -> tuple[Form, FormRow]:
    """The form that was delivered, and its figures."""
    (final,) = (final for final in record.finals if final.candidate == record.delivered)
    assert final.ship is not None
    return final.ship, final.forms[final.ship]


def folder_of(folder: Path, budget: str) -> Path:
    """Where the search of a budget stands."""
    return folder / budget.replace(" ", "-")


def line(row: Row) -> list[str]:
    """Of the table of budgets."""
    numbers = (row.predicted, row.measured, row.again, row.median)
    costs = (f"{number:.2f}" if number else "" for number in numbers)
    scores = f"{row.score:.3f}" if row.student else "", f"{row.tfidf:.3f}"
    return [
        row.budget,
        row.student,
        row.form,
        *scores,
        *costs,
        f"{row.mb:.1f}",
        "yes" if row.keeps else "no",
        f"{row.minutes:.0f}",
    ]


def front(searches: Sequence[CompressionRecord]) -> Table:
    """Every form of every student trained whole, and the baselines, by milliseconds."""
    rows: dict[tuple[str, str], FormRow] = {}
    for search in searches:
        for final in search.finals:
            rows |= {(final.candidate, form): row for form, row in final.forms.items()}
        for name, baseline in search.baselines.items():
            if baseline.score is not None and baseline.p95 is not None and baseline.bytes is not None:
                row = FormRow(p50=0.0, p95=baseline.p95, bytes=baseline.bytes, keeps=True, score=baseline.score)
                rows[TITLES[name], ""] = row
    scored = sorted((row.p95, row.bytes, row.score, *name) for name, row in rows.items() if row.score is not None)
    counts = [{"ms": p95, "score": score} for p95, _, score, *_ in scored]
    best = set(pareto_front(counts, lower=["ms"], higher=["score"]))
    lines = [
        [name, form, f"{score:.3f}", f"{p95:.2f}", f"{size / 1e6:.1f}", "yes" if place in best else ""]
        for place, (p95, size, score, name, form) in enumerate(scored)
    ]
    return Table(["model", "form", "score", "p95, ms", "MB", "on the front"], lines, words=range(2))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
