"""How a narrow student is born: fresh, cut out of the teacher (Extract Then Distill), or of raw text before.

    emdistill distill --task text --data wiki.txt.xz --teacher DIR_OR_HUB_ID --student 4x312 --student-birth fresh \\
        --method tinybert --rows 20000 --training.num_train_epochs 1 --training.learning_rate 5e-4 --output general/
    python benchmarks/births.py --data ../shared/data/glue --teachers runs --output runs/births \\
        --tasks mrpc,rte,stsb,sst2 --seeds 0,1,2 --births fresh,importance,general --general general/student

RUNS/TASK/teacher are the teachers (benchmarks/glue_students.py makes them). Every run is `distill` with BERT-EMD's
recipe and the last checkpoint: nothing is chosen. Prints scores and, for each task and seed, after which share of the
steps the extracted student's loss has come down to the fresh one's final loss (running means over 50 steps); writes
OUTPUT/results.json and OUTPUT/curves.png.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from glue_students import begun, sst2_part
from jsonargparse import auto_cli

from emdistill import distill
from emdistill.data.glue import GLUE
from emdistill.models.arithmetic import has_bfloat16
from emdistill.options import load_config
from emdistill.runs.record import read_run

LOGGED_EVERY = 5
MEAN_OVER = 50
COLOURS = {"fresh": "#8a8f98", "random": "#d08b2c", "importance": "#2f6fb3", "general": "#3b8a5a", "gradual": "#8e5ab0"}


def main(
    data: str,
    teachers: str,
    output: str,
    tasks: str = "mrpc,rte,stsb,sst2",
    seeds: str = "0,1,2",
    births: str = "fresh,importance",
    general: str | None = None,
    student: str = "4x312",
    method: str = "bert-emd",
    rows: int | None = None,
    sst2_rows: int = 20_000,
) -> None:
    """Run what is missing and print the tables.

    Args:
        data: the folder that holds the GLUE folders.
        teachers: the folder that holds TASK/teacher for every task.
        output: folder of all runs.
        tasks: GLUE tasks, comma separated.
        seeds: seeds of the students, comma separated.
        births: fresh, random, importance (cut out of the teacher), gradual, general, comma separated.
        general: the student of raw text, for the birth of that name.
        student: the student, layers x width.
        method: the method.
        rows: so many training rows of every task, drawn once.
        sst2_rows: so many of SST-2's training rows to draw them from.
    """
    folder = Path(output)
    runs: dict[tuple[str, str, int], dict[str, Any]] = {}
    for seed in map(int, seeds.split(",")):
        for task in tasks.split(","):
            place = sst2_part(Path(data), folder, sst2_rows) if task == "sst2" else Path(data) / GLUE[task].folder
            for birth in births.split(","):
                run = folder / f"{task}-{birth}-{seed}"
                config = load_config(
                    teacher=str(Path(teachers) / task / "teacher"), task=task, data=str(place),
                    method=method, seed=seed, output=str(run), resume=begun(run), select="last", rows=rows,
                    check_teacher=False, teacher_cache="states", teacher_cache_folder=str(folder / "teacher_cache"),
                    training={"bf16": has_bfloat16(), "disable_tqdm": True, "logging_steps": LOGGED_EVERY,
                              "gradient_norm_steps": 0},
                    **({"student": general} if birth == "general" else {"student": student, "student_birth": birth}),
                )  # fmt: skip
                runs[task, birth, seed] = distill(config).run if not done(run) else read_run(run)
                print(f"{task} {birth} seed {seed}: {runs[task, birth, seed]['scores']['student']}", flush=True)
    report(folder, runs)


def done(run: Path) -> bool:
    """Whether a finished run stands there."""
    return begun(run) and read_run(run).is_finished


def losses(run: dict[str, Any]) -> np.ndarray:
    """The training loss, a mean over LOGGED_EVERY steps each."""
    return np.array([entry["loss"] for stage in run.log for entry in stage.log if "loss" in entry])


def smooth(values: np.ndarray) -> np.ndarray:
    """Running means over MEAN_OVER steps; the first ones over the steps there are."""
    width = MEAN_OVER // LOGGED_EVERY
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def share_to_reach(curve: np.ndarray, loss: float) -> float:
    """The share of the steps after which the curve first lies at `loss` or below; NaN: never."""
    below = np.flatnonzero(curve <= loss)
    return float((below[0] + 1) / len(curve)) if len(below) else float("nan")


def report(folder: Path, runs: dict[tuple[str, str, int], dict[str, Any]]) -> None:
    """Print and write what was found."""
    tasks = list(dict.fromkeys(task for task, _, _ in runs))
    births = list(dict.fromkeys(birth for _, birth, _ in runs))
    seeds = sorted({seed for _, _, seed in runs})
    results: dict[str, Any] = {"scores": {}, "share_of_steps_to_reach_fresh": {}}
    for task in tasks:
        metric = GLUE[task].task.metrics[0]
        for birth in births:
            scores = [runs[task, birth, seed].scores["student"][metric] for seed in seeds]
            results["scores"].setdefault(birth, {})[task] = scores
            spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
            print(f"{task:6s} {birth:11s} {metric} {statistics.mean(scores):.4f} ± {spread:.4f}")
    for birth in births:
        of_tasks = [results["scores"][birth][task] for task in tasks]
        of_seeds = [statistics.mean(scores) for scores in zip(*of_tasks, strict=True)]
        results["scores"][birth]["mean"] = of_seeds
        each = " ".join(f"{value:.4f}" for value in of_seeds)
        print(f"mean of the tasks, {birth:11s} {statistics.mean(of_seeds):.4f}   (seeds: {each})")
    for birth in (birth for birth in births if birth != "fresh" and "fresh" in births):
        shares = {
            task: [
                share_to_reach(smooth(losses(runs[task, birth, seed])), smooth(losses(runs[task, "fresh", seed]))[-1])
                for seed in seeds
            ]
            for task in tasks
        }
        results["share_of_steps_to_reach_fresh"][birth] = shares
        for task, values in shares.items():
            print(f"{birth} reaches the fresh student's final loss on {task} after "
                  + ", ".join(f"{value:.0%}" for value in values) + " of the steps")  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw(folder / "curves.png", runs, tasks, births, seeds)


def draw(path: Path, runs: dict[Any, dict[str, Any]], tasks: list[str], births: list[str], seeds: list[int]) -> None:
    """Loss against steps, a panel a task, a line a seed."""
    from matplotlib.figure import Figure  # of the bench extra; only the picture needs it

    figure = Figure(figsize=(3.2 * len(tasks), 3.2), layout="constrained")
    for place, (task, axes) in enumerate(zip(tasks, np.atleast_1d(figure.subplots(1, len(tasks))), strict=True)):
        for birth in births:
            for seed in seeds:
                curve = smooth(losses(runs[task, birth, seed]))
                steps = LOGGED_EVERY * np.arange(1, len(curve) + 1)
                axes.plot(steps, curve, color=COLOURS[birth], lw=1.2, label=birth if seed == seeds[0] else None)
        axes.set(title=GLUE[task].folder, xlabel="step", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
        if place == 0:
            axes.set_ylabel("loss (mean over 50 steps)")
            axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
