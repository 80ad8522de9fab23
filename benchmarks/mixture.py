"""One student of several tasks against a student per task; teacher annealing; each way to share beside the encoder.

    python benchmarks/mixture.py --teachers runs/teachers --source encoder/ --data ../shared/data/glue \\
        --output runs/mixture --seeds 0,1,2

Teachers stand in TEACHERS/rte, mrpc, stsb and cola (below them in a folder --teacher_name). All students keep layers of
SOURCE, the encoder that the teachers were fine-tuned from, so that none begins nearer to one task. A student of several
tasks takes as many steps as the students of one task take together. Runs that are finished are reused. Prints the mean
over tasks and each task's first metric per row, and the paired difference of the mean to the plain student of several
tasks with a 95 % interval over the seeds; writes OUTPUT/results.json.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from births import done
from glue_students import begun
from jsonargparse import auto_cli

from emdistill import distill
from emdistill.models.arithmetic import has_bfloat16
from emdistill.options import load_config
from emdistill.runs.comparison import paired_difference
from emdistill.runs.record import read_run

TASKS = {"rte": "RTE", "mrpc": "MRPC", "stsb": "STS-B", "cola": "CoLA"}
METRICS = {"rte": "accuracy", "mrpc": "accuracy", "stsb": "pearson", "cola": "matthews_corrcoef"}
SINGLE, PLAIN = "a student per task", "several tasks"
ANNEALED: dict[str, Any] = {"objective": {"annealing": True}}
# row -> changed options of the run, settings of the mixture file, and settings of its tasks
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]] = {
    SINGLE: ({}, {}, {}),
    "a student per task, annealed": (ANNEALED, {}, {}),
    PLAIN: ({}, {}, {}),
    "annealed": (ANNEALED, {}, {}),
    "labels alone": ({"method": "hard-labels"}, {}, {}),
    "hierarchy (CoLA from layer 2)": ({}, {}, {"cola": {"layer": 2}}),
    "private features": ({}, {"private": True}, {}),
    "private, orthogonal": ({}, {"private": True, "orthogonality": 0.1}, {}),
    "adversary": ({}, {"adversary": 0.1}, {}),
    "gate": ({}, {"gate": True}, {}),
    "label embedding": ({}, {"label_embedding": True}, {}),
}


def main(
    teachers: str,
    source: str,
    data: str,
    output: str,
    teacher_name: str = "",
    seeds: str = "0,1,2",
    rows: int | None = None,
    epochs: float = 3.0,
    student: str = "3",
    learning_rate: float = 1e-4,
    max_length: int = 128,
    only: str | None = None,
) -> None:
    """Run what is missing and print the table.

    Args:
        teachers: folder of the fine-tuned teachers.
        source: the encoder whose layers all students keep.
        data: folder of the GLUE tasks.
        output: folder of all runs.
        teacher_name: folder of each teacher below its task's.
        seeds: seeds, comma separated.
        rows: so many training rows of each task at most.
        epochs: passes over as many rows as all tasks have.
        student: the student's shape.
        learning_rate: of all runs.
        max_length: tokens per text at most.
        only: some of the rows, separated by semicolons; all if not given.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    places = {task: str((Path(teachers) / task / teacher_name).resolve()) for task in TASKS}
    glue = {task: str((Path(data) / name).resolve()) for task, name in TASKS.items()}
    common = {
        "student": student, "student_source": source,
        "select": "last", "rows": rows, "check_teacher": False, "baselines": "none",
        "max_length": max_length, "teacher_cache": "states", "teacher_cache_folder": str(folder / "cache"),
        "training": {
            "num_train_epochs": epochs, "learning_rate": learning_rate, "disable_tqdm": True, "gradient_norm_steps": 0,
            "bf16": has_bfloat16(),
        },
    }  # fmt: skip
    results: dict[str, dict[str, list[float]]] = {}
    for seed in map(int, seeds.split(",")):
        for row in ROWS if only is None else only.split(";"):
            options, settings, of_tasks = ROWS[row]
            run = folder / f"{''.join(c if c.isalnum() else '-' for c in row)}-{seed}"
            given = {**common, **options, "seed": seed}
            if row.startswith(SINGLE):
                scores = {
                    task: _score(
                        run / task, METRICS[task], {**given, "task": task, "data": glue[task], "teacher": place}
                    )
                    for task, place in places.items()
                }
            else:
                entries = [{"task": t, "data": glue[t], "teacher": places[t], **of_tasks.get(t, {})} for t in TASKS]
                file = folder / f"{run.name.rpartition('-')[0]}.yaml"
                file.write_text(json.dumps({"tasks": entries, **settings}, indent=2), encoding="utf-8")
                given |= {"data": str(file), "teacher": places["rte"]}
                scores = {task: _score(run, f"{task}/{metric}", given) for task, metric in METRICS.items()}
            scores["mean"] = statistics.mean(scores.values())
            for name, value in scores.items():
                results.setdefault(row, {}).setdefault(name, []).append(value)
            print(
                f"seed {seed} {row}: {', '.join(f'{name} {value:.4f}' for name, value in scores.items())}", flush=True
            )
    _print(results)
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _score(run: Path, metric: str, options: dict[str, Any]) -> float:
    """The student's score in a metric, its run made where it is missing."""
    if not done(run):
        distill(load_config(**options, output=str(run), resume=begun(run)), quiet=True)
    return read_run(run).scores["student"][metric]


def _print(results: dict[str, dict[str, list[float]]]) -> None:
    for row, scores in results.items():
        means = "  ".join(f"{name} {statistics.mean(values):.4f}" for name, values in scores.items())
        interval = ""
        if row != PLAIN and PLAIN in results:
            difference = paired_difference(scores["mean"], results[PLAIN]["mean"])
            ends = "" if difference.low is None else f" [{difference.low:+.4f}, {difference.high:+.4f}]"
            interval = f"  {difference.mean:+.4f}{ends}"
        print(f"{row:32s} {means}{interval}")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
