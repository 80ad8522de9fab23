"""What text without labels gives a BiLSTM tagger, and what a BERT tagger costs beside it, at few labelled sentences.

    python benchmarks/cross_view.py --encoder DIR_OR_HUB_ID --ud ../shared/data/ud_ewt --wnut ../shared/data/wnut17

Per task, number of labelled sentences and seed, on the same sentences: the BiLSTM on labels alone, the BiLSTM with
views that it teaches itself, the same with views and student taught by a BERT tagger, that tagger, and, where --spacy
names a Python that has it, a CNN tagger of spaCy (spacy_peer.py; timed in a process of its own). All BiLSTMs take
equally many steps, and the last checkpoint is kept, so that nothing is chosen on the scored set: UD EWT's test set,
WNUT-17's dev set. What is finished is not done again. The table is written to OUTPUT/cross_view.md, its numbers to
cross_view.json.

Energy is seconds × watts: an assumption on the machine and no measurement.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jsonargparse import auto_cli

from emdistill import distill, finetune
from emdistill.data.read import read_data
from emdistill.models import load_classifier, load_tokenizer
from emdistill.options import load_config, load_finetune_config
from emdistill.runs.comparison import paired_difference
from emdistill.runs.record import RUN_FILE, read_run
from emdistill.ship.latency import forward, time_in_turns
from emdistill.tasks.answers import ragged
from emdistill.training.splits import labelled_rows

LABELS, BERT, SPACY = "labels", "bert", "spaCy CNN"
ARMS = {LABELS: "BiLSTM, labels alone", "views": "BiLSTM, views", "taught": "BiLSTM, views, by BERT", BERT: "BERT"}
TIMED = 100  # sentences, one at a time


@dataclass(frozen=True)
class Settings:
    """How the taggers learn. epochs: over the labelled sentences, repeated to be half, and the others together."""

    student: str = "bilstm"
    unlabelled_rows: int | None = None
    epochs: float = 5.0
    learning_rate: float = 2e-3
    view_weight: float = 0.25
    bert_epochs: float = 10.0
    spacy_epochs: int = 20


@dataclass(frozen=True)
class Row:
    """An arm: scores in the task's first metric by seed, parameters, seconds of training (a teacher's too, where one
    taught), and milliseconds per sentence."""

    task: str
    labelled: int
    arm: str
    metric: str
    scores: tuple[float, ...]
    parameters: int
    seconds: float
    milliseconds: float


def main(
    encoder: str,
    ud: str,
    wnut: str,
    output: str = "runs/cross-view",
    tasks: str = "ud,wnut17",
    labelled: str = "500,1000",
    seeds: int = 5,
    watts: float = 65.0,
    spacy: str | None = None,
    settings: Settings = Settings(),
) -> None:
    """Run what is missing, and write the table.

    Args:
        encoder: folder or hub id of the encoder that is fine-tuned, and whose tokens the BiLSTM reads.
        ud: folder of UD English EWT, for parts of speech.
        wnut: folder of WNUT-17, for entities.
        output: folder of all runs.
        tasks: ud, wnut17.
        labelled: numbers of labelled sentences; the others of train are text without labels.
        seeds: so many, from 0.
        watts: of the machine while it computes.
        spacy: a Python that has spaCy.
        settings: of the taggers.
    """
    folder = Path(output)
    places = {
        "ud": {"kind": "tagging", "data": f"{ud}/en_ewt-ud-train.conllu", "dev": f"{ud}/en_ewt-ud-test.conllu"},
        "wnut17": {"task": "wnut17", "data": wnut},
    }
    rows: list[Row] = []
    for task in tasks.split(","):
        texts = write_texts(folder / f"{task}.jsonl", places[task])
        for count in map(int, labelled.split(",")):
            cell = folder / f"{task}-{count}"
            for seed in range(seeds):
                run_seed(cell, seed, encoder, texts[0], {**places[task], "rows": count}, settings)
            rows += measure(cell, task, count, seeds, texts[1])
            if spacy is not None:
                rows.append(measure_spacy(cell, task, count, seeds, spacy, places[task], settings.spacy_epochs))
    (folder / "cross_view.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    (folder / "cross_view.md").write_text("\n".join(table(rows, watts)) + "\n", encoding="utf-8")
    print(folder / "cross_view.md")


def write_texts(file: Path, place: dict[str, str]) -> tuple[str, list[str]]:
    """The texts of train in a file, and those that are timed."""
    data = read_data(load_config(teacher="none", output="", **place))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in data.train["text"]), encoding="utf-8")
    return str(file), list(next(iter(data.evaluation.values()))["text"][:TIMED])


def run_seed(cell: Path, seed: int, encoder: str, text: str, data: dict[str, Any], settings: Settings) -> None:
    """The four runs of a seed, those that are not finished."""
    training = {
        "num_train_epochs": settings.epochs, "learning_rate": settings.learning_rate, "gradient_norm_steps": 0,
        "disable_tqdm": True,
    }  # fmt: skip
    born = {"student": settings.student, "student_source": encoder, "unlabelled": text, "labelled_share": 0.5}
    born |= {"unlabelled_rows": settings.unlabelled_rows, "baselines": "none"}
    views = {"method": "cross-view", "objective": {"view_weight": settings.view_weight}}
    for arm, own in {
        BERT: {"model": encoder, "training": {"num_train_epochs": settings.bert_epochs, "disable_tqdm": True}},
        LABELS: {"teacher": "none", "method": "hard-labels", "training": training, **born},
        "views": {"teacher": "none", "training": training, **views, **born},
        "taught": {"teacher": str(cell / f"{BERT}-{seed}"), "training": training, **views, **born},
    }.items():
        run = cell / f"{arm}-{seed}"
        begun = (run / RUN_FILE).exists()
        if not begun or not read_run(run).is_finished:
            options = {**data, **own, "output": str(run), "seed": seed, "select": "last", "resume": begun}
            if arm == BERT:
                finetune(load_finetune_config(**options))
            else:
                distill(load_config(**options), quiet=True)
        print(run, read_run(run).scores, flush=True)


def measure(cell: Path, task: str, labelled: int, seeds: int, texts: Sequence[str]) -> list[Row]:
    """What stands in the folder of a task and number of sentences; the models of the first seed are timed in turns."""
    runs = {arm: [read_run(cell / f"{arm}-{seed}") for seed in range(seeds)] for arm in ARMS}
    folders = {arm: cell / f"{arm}-0" / ("" if arm == BERT else "student") for arm in ARMS}
    models = {arm: load_classifier(folder) for arm, folder in folders.items()}
    encode = load_tokenizer(folders[LABELS])
    inputs = [encode(text, truncation=True, max_length=128, return_tensors="pt") for text in texts]

    def call(arm: str) -> Any:
        return lambda number: forward(models[arm], inputs[number % len(inputs)])

    with torch.inference_mode():
        times = time_in_turns({arm: call(arm) for arm in models})
    rows = []
    for arm, own in runs.items():
        record = own[0]
        assert record.task is not None
        side, metric = "teacher" if arm == BERT else "student", record.task.metric
        seconds = fmean(run.timings["training_seconds"] for run in own)
        if arm == "taught":
            seconds += fmean(run.timings["training_seconds"] for run in runs[BERT])
        rows.append(
            Row(
                task, labelled, ARMS[arm], metric, tuple(run.scores[side][metric] for run in own),
                models[arm].num_parameters(), seconds, 1e3 * median(times[arm]),
            )
        )  # fmt: skip
    return rows


def measure_spacy(
    cell: Path, task: str, labelled: int, seeds: int, python: str, place: dict[str, str], epochs: int
) -> Row:
    """The CNN of spaCy on the same sentences; what a seed has answered is kept in SPACY-SEED.json."""
    data = read_data(load_config(teacher="none", output="", **place))
    labels, test = data.task.labels, next(iter(data.evaluation.values()))
    order = {
        "train": sentences(labelled_rows(data, select="last", rows=labelled), labels),
        "test": sentences(test, labels), "entities": data.task.metrics[0] == "entity_f1", "epochs": epochs,
    }  # fmt: skip
    scores, figures = [], []
    for seed in range(seeds):
        file = cell / f"spacy-{seed}.json"
        if not file.exists():
            command, here = [python, "-c", "import spacy_peer; spacy_peer.main()"], Path(__file__).parent
            sent = json.dumps(order | {"seed": seed})
            done = subprocess.run(command, input=sent, capture_output=True, text=True, check=True, cwd=here)
            file.write_text(done.stdout.splitlines()[-1], encoding="utf-8")
        answered = json.loads(file.read_text(encoding="utf-8"))
        sure = [np.eye(len(labels))[[labels.index(tag) for tag in tags]] for tags in answered["answers"]]
        scores.append(data.task.score(ragged(sure), data.task.gold(test))[data.task.metrics[0]])
        figures.append([answered[name] for name in ("parameters", "seconds", "milliseconds")])
    parameters, seconds, milliseconds = map(fmean, zip(*figures, strict=True))
    metric = data.task.metrics[0]
    return Row(task, labelled, SPACY, metric, tuple(scores), int(parameters), seconds, milliseconds)


def sentences(examples: Dataset, labels: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """The words and the tags of each row."""
    rows = zip(examples["text"], examples["words"], examples["label"], strict=True)
    return [([text[start:end] for start, end in words], [labels[tag] for tag in tags]) for text, words, tags in rows]


def table(rows: Sequence[Row], watts: float) -> list[str]:
    """Markdown: the means with their 95 % intervals, the paired differences to the labels alone, and the costs."""
    titles = (
        "task", "labelled", "tagger", "metric", "score", "points over labels alone", "million parameters",
        "seconds of training", "ms per sentence", f"Wh of training at {watts:g} W", "J per 1,000 sentences",
    )  # fmt: skip
    lines = [line(*titles), line(*("---" for _ in titles))]
    alone = {(row.task, row.labelled): row.scores for row in rows if row.arm == ARMS[LABELS]}
    for row in rows:
        baseline = alone[row.task, row.labelled]
        difference = "" if row.arm == ARMS[LABELS] else interval(row.scores, baseline, sign="+")
        joules = row.seconds * watts, row.milliseconds * watts  # of the training, and of 1,000 sentences
        costs = (row.parameters / 1e6, row.seconds, row.milliseconds, joules[0] / 3600, joules[1])
        score = interval(row.scores, [0.0] * len(row.scores))
        formats = ("{:.1f}", "{:.0f}", "{:.1f}", "{:.2f}", "{:.0f}")
        shown = [form.format(cost) for form, cost in zip(formats, costs, strict=True)]
        lines.append(line(row.task, row.labelled, row.arm, row.metric, score, difference, *shown))
    return lines


def interval(values: Sequence[float], baseline: Sequence[float], *, sign: str = "") -> str:
    """100 × the mean difference, with its 95 % interval where there is one."""
    found = paired_difference(values, baseline)
    mean = f"{100 * found.mean:{sign}.1f}"
    if found.low is None or found.high is None:
        return mean
    return f"{mean} ({100 * found.low:{sign}.1f} to {100 * found.high:{sign}.1f})"


def line(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
