"""A distilled tagger beside spaCy's CNN, which a user would take without any of this: scores and milliseconds.

    emdistill export RUN --int8
    python benchmarks/taggers.py --runs "RUN RUN" --spacy PYTHON_WITH_SPACY

RUN is a finished distillation of a tagger with its export; --spacy names a Python that has spaCy. The CNN
(spacy_peer.py) learns from the run's labelled sentences and is scored on its development set, as the student is in the
form that its export ships. Milliseconds are the median of one sentence at a time on one thread: of the student from the
text to the logits, of the CNN from the words to the tags; it is timed in a process of its own. What the CNN has
answered is kept. The table is written to OUTPUT/taggers.md, its numbers to taggers.json.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from cross_view import Row, interval, line, measure_spacy
from jsonargparse import auto_cli

from emdistill.data.read import read_data
from emdistill.options import load_config
from emdistill.runs.gate_record import GATE, read_gate
from emdistill.runs.record import read_run
from emdistill.ship.latency import time_in_turns
from emdistill.ship.onnx import open_onnx

READ = ("data", "dev", "task", "kind", "text", "label")  # options that say what a run reads
FEWEST_CALLS = 2000


def main(runs: str, spacy: str, output: str = "runs/taggers", seeds: int = 1, epochs: int = 10) -> None:
    """Measure every run and the CNN on its sentences, and write the table.

    Args:
        runs: folders of distillations of taggers, separated by spaces; those of one task learn from the same.
        spacy: a Python that has spaCy.
        output: folder of the table.
        seeds: of the CNN, from 0.
        epochs: of the CNN over the labelled sentences.
    """
    folder, rows, known = Path(output), list[Row](), dict[str, Row]()
    folder.mkdir(parents=True, exist_ok=True)
    for run in map(Path, runs.split()):
        record = read_run(run)
        place = {name: record.config[name] for name in READ if record.config.get(name) is not None}
        assert record.task is not None
        name = record.task.name
        if name not in known:
            (folder / name).mkdir(exist_ok=True)
            known[name] = measure_spacy(folder / name, name, record.rows["train"], seeds, spacy, place, epochs)
            rows.append(known[name])
        rows.append(measure(run, place, known[name]))
    (folder / "taggers.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    (folder / "taggers.md").write_text("\n".join(table(rows)) + "\n", encoding="utf-8")
    print(folder / "taggers.md")


def measure(run: Path, place: dict[str, Any], beside: Row) -> Row:
    """The student of a run in the form that its export ships."""
    record, gate = read_run(run), read_gate(run)
    assert gate is not None
    assert record.student is not None
    graph = open_onnx(run / GATE.parent, threads=1)
    data = read_data(load_config(teacher="none", output="", **place))
    texts = next(iter(data.evaluation.values()))["text"][:FEWEST_CALLS]

    def answer(number: int) -> object:
        text = texts[number % len(texts)]
        return graph.logits(graph.pad(graph.encode([text], None, max_length=graph.config.reading.max_length)))

    times = time_in_turns({"student": answer}, rounds=1, calls=FEWEST_CALLS, seconds=1e9)["student"]
    form = gate.variants[gate.verdict.ship or "int8"]
    return replace(
        beside,
        arm=f"{run.name}: {record.config['student']} by {record.config['method']}, {graph.path.name}",
        scores=(form.scores[beside.metric],),
        parameters=record.student.parameters,
        seconds=record.timings["training_seconds"],
        milliseconds=1e3 * median(times),
    )


def table(rows: list[Row]) -> list[str]:
    """Markdown: scores in percent, and costs."""
    titles = ("task", "labelled", "tagger", "metric", "score", "million parameters", "training, s", "ms per sentence")
    lines = [line(*titles), line(*("---" for _ in titles))]
    for row in rows:
        costs = f"{row.parameters / 1e6:.1f}", f"{row.seconds:.0f}", f"{row.milliseconds:.2f}"
        score = interval(row.scores, [0.0] * len(row.scores))
        lines.append(line(row.task, row.labelled, row.arm, row.metric, score, *costs))
    return lines


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
