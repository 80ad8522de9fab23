"""What the order and the kinds of a chain's operators are worth, and which mapping teaches chains of other kinds best.

    python benchmarks/chains.py --teacher runs/stsb/teacher --task stsb --data ../shared/data/glue/STS-B --output chains

Students of (nearly) equal parameters, alike but for their operators, are distilled alike but for the layer mapping: one
run per order, mapping and seed. The last checkpoint is kept, so that nothing is chosen on the scored set. What is
finished is not done again. The table is written to OUTPUT/chains.md, its numbers to chains.json.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jsonargparse import auto_cli

from emdistill import distill
from emdistill.options import load_config
from emdistill.runs.record import RUN_FILE, read_run


@dataclass(frozen=True)
class Row:
    """An order under a mapping: scores by seed, parameters, and seconds of training per run."""

    operators: str
    mapping: str
    metric: str
    scores: tuple[float, ...]
    parameters: int
    seconds: float


def main(
    teacher: str,
    task: str,
    data: str,
    output: str,
    orders: str = "afafaf,aaafff,daffaf",
    mappings: str = "emd,uniform,last",
    seeds: int = 2,
    method: str = "bert-emd",
    rows: int | None = 1500,
    training: dict[str, Any] | None = None,
) -> None:
    """Run what is missing, and write the table.

    Args:
        teacher: folder of the fine-tuned teacher.
        task: a task's name.
        data: its folder or file.
        output: folder of all runs.
        orders: chains, separated by commas; daffaf begins and ends as LV-BERT's does.
        mappings: layer mappings, separated by commas.
        seeds: so many, from 0.
        method: a method that maps layers.
        rows: of the training set, drawn once.
        training: settings of the training beside 3 epochs at a learning rate of 1e-4.
    """
    common: dict[str, Any] = {
        "teacher": teacher, "task": task, "data": data, "method": method, "rows": rows, "select": "last",
        "baselines": "none", "teacher_cache": "states", "teacher_cache_folder": f"{output}/cache",
        "training": {"num_train_epochs": 3, "learning_rate": 1e-4, "disable_tqdm": True, **(training or {})},
    }  # fmt: skip
    table = [
        measure(Path(output), order, mapping, seeds, common)
        for order in orders.split(",")
        for mapping in mappings.split(",")
    ]
    (Path(output) / "chains.json").write_text(json.dumps([asdict(row) for row in table], indent=1) + "\n")
    (Path(output) / "chains.md").write_text("\n".join(lines(table)) + "\n", encoding="utf-8")
    print(*lines(table), sep="\n")


def measure(folder: Path, order: str, mapping: str, seeds: int, common: Mapping[str, Any]) -> Row:
    """The runs of an order under a mapping, done where they are not finished."""
    records = []
    for seed in range(seeds):
        run = folder / f"{order}-{mapping}-{seed}"
        begun = (run / RUN_FILE).exists()
        if not begun or not read_run(run).is_finished:
            own = {"student": f"chain:{order}", "mapping": mapping, "seed": seed, "output": str(run), "resume": begun}
            options: dict[str, Any] = {**common, **own}
            distill(load_config(**options), quiet=True)
        records.append(read_run(run))
        print(run, records[-1].scores, flush=True)
    first = records[0]
    assert first.task is not None
    assert first.student is not None
    return Row(
        order,
        mapping,
        first.task.metric,
        tuple(record.scores["student"][first.task.metric] for record in records),
        first.student.parameters,
        fmean(record.timings["training_seconds"] for record in records),
    )


def lines(table: list[Row]) -> list[str]:
    """Markdown: an order per row, a mapping per column, mean ± standard deviation over the seeds."""
    mappings = list(dict.fromkeys(row.mapping for row in table))
    orders = {row.operators: row for row in table}
    scores = {(row.operators, row.mapping): row.scores for row in table}
    head = ["operators", "million parameters", *mappings, f"mean {table[0].metric}"]
    found = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for order, row in orders.items():
        own = [scores[order, mapping] for mapping in mappings]
        cells = [order, f"{row.parameters / 1e6:.2f}", *map(shown, own), f"{fmean(map(fmean, own)):.3f}"]
        found.append(f"| {' | '.join(cells)} |")
    return found


def shown(scores: tuple[float, ...]) -> str:
    """Mean ± standard deviation."""
    return f"{fmean(scores):.3f}" + (f" ± {stdev(scores):.3f}" if len(scores) > 1 else "")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
