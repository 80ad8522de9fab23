"""Away from every development set: which setting of the default method, scored on rows of train (protocol.md).

    python benchmarks/choice.py --data ../shared/data/glue --minilm DIR_OR_HUB_ID --runs runs --output choice

RUNS is the folder of results.py, whose fine-tuned teachers (RUNS/TASK/TEACHER) teach here. A run is
OUTPUT/TASK/TEACHER/ARM/SEED; what is finished is not done again, and the table has whatever is there.
"""

import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jsonargparse import auto_cli
from results import LAYERS, SST2_LABELLED, SST2_SEED, SST2_UNLABELLED, write

from emdistill import distill
from emdistill.config import RunConfig
from emdistill.console import Table, markdown
from emdistill.data.messages import MESSAGES, messages_splits
from emdistill.data.read import read_task_data
from emdistill.models.arithmetic import has_bfloat16
from emdistill.options import load_config
from emdistill.runs.record import RUN_FILE, read_run
from emdistill.tasks.task import TaskData

SCORED, MESSAGES_UNLABELLED, SPLIT_SEED = 3_000, 10_000, 7
ARMS: dict[str, dict[str, Any]] = {
    "labels": {"method": "hard-labels"},
    "labels-0.3": {"method": "hard-labels", "training": {"num_train_epochs": 0.3}},
    "joint-2": {"training": {"num_train_epochs": 2}},
    "beta-1": {"method": "bert-emd", "objective": {"beta": 1.0}},
    "beta-30": {"method": "bert-emd", "objective": {"beta": 30.0}},
    "answers": {"method": "soft-targets"},
    "bert-emd": {"method": "bert-emd"},
    "joint": {},
    "ratio-0.2": {"objective": {"layer_ratio": 0.2}},
    "fade": {"objective": {"schedule": "fade"}},
    "two-phase": {"objective": {"schedule": "two-phase"}},
    "standardised": {"objective": {"standardised_logits": 0.1}},
    "no-attention": {"objective": {"attention_scores": 0.0}},
    "hidden-alone": {"objective": {"attention_scores": 0.0, "embeddings": 0.0}},
    "attention": {"objective": {"attention_scores": 1.0}},  # under MPNet too, as `joint` once was
    "heads-mean": {"objective": {"attention_scores": 1.0, "heads": "mean"}},
    "heads-match": {"objective": {"attention_scores": 1.0, "heads": "match"}},
    "per-layer": {"objective": {"projection": "per_layer"}},
    "each-norm": {"objective": {"weighting": "each-norm"}},
    "emd-memory": {"mapping": "emd", "objective": {"cost_memory": 0.9}},
    "emd-inverse": {"mapping": "emd", "objective": {"cost_attention": "inverse", "smoothing": 0.9}},
    "emd-reverse": {"mapping": "emd", "objective": {"cost_attention": "reverse", "smoothing": 0.9}},
    "unbalanced-0.1": {"mapping": "unbalanced", "objective": {"penalty": 0.1}},
    "nearest": {"mapping": "unbalanced", "objective": {"penalty": 0.0}},
    "uniform": {"mapping": "uniform"},
    "emd": {"mapping": "emd"},
    "last": {"mapping": "last"},
}


def main(
    data: str,
    minilm: str,
    runs: str,
    output: str = "choice",
    tasks: str = "sst2-2k,messages,stsb,cola",
    teachers: str = "minilm",
    arms: str = "labels,answers,bert-emd,joint,fade",
    seeds: str = "0",
    rate: float | None = None,
    epochs: float | None = None,
    student: str = "3",
) -> None:
    """Run what is missing, and print the scores.

    Args:
        data: the folder that holds the GLUE folders.
        minilm: folder or hub id of all-MiniLM-L6-v2, whose layers 1, 3 and 5 the student has at birth.
        runs: the folder of results.py with the fine-tuned teachers.
        output: folder of the rows and of all runs.
        tasks: sst2-2k, messages, stsb, cola; comma separated.
        teachers: minilm, mpnet.
        arms: names of ARMS, comma separated.
        seeds: comma separated.
        rate: learning rate of all these arms, whose names then end in it; their recipes' if not given.
        epochs: of all these arms, whose names then end in it; the protocol's if not given.
        student: as for `emdistill distill`, born of MiniLM; or half, every second layer of the teacher. Another than
            3 stands at the end of the arms' names.
    """
    folder = Path(output)
    material = prepare(Path(data), folder / "data")
    ending = "".join(f"-{name}-{value:g}" for name, value in {"rate": rate, "epochs": epochs}.items() if value)
    ending += "" if student == "3" else f"-{student.replace(':', '-')}"
    tried = {name: value for name, value in {"learning_rate": rate, "num_train_epochs": epochs}.items() if value}
    for task in tasks.split(","):
        for teacher in teachers.split(","):
            for arm in arms.split(","):
                for seed in map(int, seeds.split(",")):
                    place = folder / task / teacher / f"{arm}{ending}" / str(seed)
                    examples, options = material[task]
                    options = {**options, **birth(student, teacher, minilm)}
                    config = run_config(options, ARMS[arm], f"{runs}/{task}/{teacher}", place, seed, tried)
                    distill(config, examples=examples)
    print(table(folder))


def birth(student: str, teacher: str, minilm: str) -> dict[str, Any]:
    """The options that a student is born by."""
    if student == "half":
        return {"student": str(LAYERS[teacher] // 2)}
    return {"student": student, "student_source": minilm}


def prepare(glue: Path, folder: Path) -> dict[str, tuple[TaskData, dict[str, Any]]]:
    """Each task's rows to learn from and, as dev, to score on, with its further options; text goes to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {}
    for task, name in {"stsb": "STS-B", "cola": "CoLA"}.items():
        data = read_task_data(str(glue / name), task=task)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(data.train)).tolist()
        fifth = len(order) // 5
        chosen[task] = split(data, order[fifth:], order[:fifth]), {"task": task, "training": {"num_train_epochs": 2}}
    data = read_task_data(str(glue / "SST-2"), task="sst2")
    rows = {text: row for row, text in reversed(list(enumerate(data.train["text"])))}
    pool = sorted(rows)
    random.Random(SST2_SEED).shuffle(pool)
    few, learned = SST2_LABELLED, SST2_LABELLED + SST2_UNLABELLED
    parts = [[rows[text] for text in part] for part in (pool[:few], pool[learned : learned + SCORED])]
    text = write(folder / "sst2-text.jsonl", ((text, "") for text in pool[few:learned]), labelled=False)
    chosen["sst2-2k"] = split(data, *parts), {"task": "sst2", "unlabelled": text}
    data, spare = read_task_data(MESSAGES.name), messages_splits()["text"]
    text = write(folder / "messages-text.jsonl", spare[:MESSAGES_UNLABELLED], labelled=False)
    names = data.task.labels
    scored = {
        "text": [row for row, _ in spare[-SCORED:]],
        "label": [names.index(label) for _, label in spare[-SCORED:]],
    }
    scored_rows = Dataset.from_dict(scored, features=data.train.features)
    chosen[MESSAGES.name] = replace(data, evaluation={"dev": scored_rows}), {"task": MESSAGES.name, "unlabelled": text}
    return chosen


def split(data: TaskData, learned: Sequence[int], scored: Sequence[int]) -> TaskData:
    """The same task with these rows of train to learn from and those to score on, each in the order of the file."""
    train, dev = (data.train.select(sorted(rows)) for rows in (learned, scored))
    return replace(data, train=train, evaluation={"dev": dev})


def run_config(
    options: dict[str, Any],
    arm: dict[str, Any],
    teacher: str,
    place: Path,
    seed: int,
    tried: dict[str, float],
) -> RunConfig:
    """The options of one run; `tried` are training options above the arm's."""
    training = {"num_train_epochs": 1, **options.get("training", {}), **arm.get("training", {})}
    fixed = {"select": "last", "teacher_cache": "states", "baselines": "none"}
    run = {"data": options["task"], "teacher": teacher, "output": str(place), "seed": seed}
    run |= {"teacher_cache_folder": str(place.parents[3] / "teacher_cache"), "resume": (place / RUN_FILE).exists()}
    training |= {"bf16": has_bfloat16(), "gradient_norm_steps": 0, **tried}
    return load_config(**{**options, **arm, **fixed, **run, "training": training})


def table(folder: Path) -> str:
    """A line per task, teacher and arm: the first metric by seed, and its mean."""
    scores: dict[tuple[str, ...], dict[int, float]] = {}
    for file in sorted(folder.glob(f"*/*/*/*/{RUN_FILE}")):
        record = read_run(file.parent)
        if record.is_finished and record.task is not None:
            task, teacher, arm, seed = file.parent.relative_to(folder).parts
            place = task, record.task.metric, teacher, arm
            scores.setdefault(place, {})[int(seed)] = record.scores["student"][record.task.metric]
    lines = []
    for cell, by_seed in scores.items():
        shown = " ".join(f"{by_seed[seed]:.4f}" for seed in sorted(by_seed))
        lines.append([*cell, shown, f"{statistics.mean(by_seed.values()):.4f}"])
    return markdown(Table(["task", "metric", "teacher", "arm", "by seed", "mean"], lines, words=range(4)))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
