"""Teacher, label-only, logit-only and BERT-EMD students on GLUE tasks, at equal budget, over several seeds.

    python benchmarks/glue_students.py --data ../shared/data/glue --encoder DIR_OR_HUB_ID --output runs/ \\
        --tasks mrpc,rte,stsb,cola,sst2 --seeds 0,1,2

One teacher a task (seed 0), then for each seed the same 3-layer student trained by each method. Every run is a plain
`finetune` or `distill` with the recipes' numbers; runs already finished are reused, interrupted ones resumed.
Prints a table and writes it, with every score, to OUTPUT/results.json. SST-2 uses 20,000 of its training sentences.
"""

import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from emdistill import distill, finetune
from emdistill.data.glue import GLUE
from emdistill.options import load_config, load_finetune_config
from emdistill.runs.record import RUN_FILE, read_run

METHODS = ("hard-labels", "soft-targets", "bert-emd")
SST2_ROWS = 20_000


def main(
    data: str,
    encoder: str,
    output: str = "runs",
    tasks: str = "mrpc,rte,stsb,cola,sst2",
    seeds: str = "0,1,2",
    methods: str = ",".join(METHODS),
    student: str = "3",
    precision: str = "bf16",
    training: dict[str, Any] | None = None,
    teacher_training: dict[str, Any] | None = None,
    check_teacher: bool = True,
) -> None:
    """Run what is missing and print the table.

    Args:
        data: the folder that holds the GLUE folders.
        encoder: folder or hub id of the pretrained encoder.
        output: folder of all runs.
        tasks: GLUE tasks, comma separated.
        seeds: seeds of the students, comma separated.
        methods: methods, comma separated.
        student: the student, as for `emdistill distill --student`.
        precision: bf16 (autocast in training, scores in float32) or fp32, the same for every run.
        training: further training options, the same for teacher and students.
        teacher_training: training options of the teacher only.
        check_teacher: refuse a teacher near chance (MiniLM on RTE is one).
    """
    options = {"bf16": precision == "bf16", "disable_tqdm": True, **(training or {})}
    folder = Path(output)
    for task in tasks.split(","):
        place = sst2_part(Path(data), folder) if task == "sst2" else Path(data)
        common = {"task": task, "data": str(place)}
        teacher = folder / task / "teacher"
        started = time.perf_counter()
        finetune(
            load_finetune_config(
                model=encoder, output=str(teacher), seed=0, resume=begun(teacher),
                training={**options, **(teacher_training or {})}, **common,
            )
        )  # fmt: skip
        for seed in seeds.split(","):
            for method in methods.split(","):
                run = folder / task / f"{method}-{student}-{seed}"
                distill(
                    load_config(
                        teacher=str(teacher), output=str(run), method=method, student=student, seed=int(seed),
                        resume=begun(run), training=options,
                        check_teacher=check_teacher, **common,
                    )
                )  # fmt: skip
                print(f"{task} {method} seed {seed}: {time.perf_counter() - started:.0f} s since the task began")
    report(folder, tasks.split(","), methods.split(","), student)


def begun(run: Path) -> bool:
    """Whether a run stands there, finished or not."""
    return (run / RUN_FILE).exists()


def sst2_part(data: Path, folder: Path, rows: int = SST2_ROWS) -> Path:
    """A GLUE folder with so many of SST-2's training rows (drawn with seed 0, in their order) and its whole dev."""
    part = folder / "data" / "SST-2"
    if not (part / "train.tsv").exists():
        part.mkdir(parents=True, exist_ok=True)
        header, *lines = (data / "SST-2" / "train.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
        chosen = sorted(random.Random(0).sample(range(len(lines)), rows))
        (part / "dev.tsv").write_bytes((data / "SST-2" / "dev.tsv").read_bytes())
        (part / "train.tsv").write_text(header + "".join(lines[row] for row in chosen), encoding="utf-8")
    return part


def report(folder: Path, tasks: list[str], methods: list[str], student: str) -> None:
    """Print a line a task and method: the first metric of every finished seed, mean and standard deviation."""
    results: dict[str, Any] = {}
    for task in tasks:
        metric = GLUE[task].task.metrics[0]
        teacher = read_run(folder / task / "teacher").scores["teacher"]
        results[task] = {"teacher": teacher}
        print(f"\n{GLUE[task].folder} ({metric}): teacher {teacher[metric]:.4f}")
        for method in methods:
            runs = [read_run(path.parent) for path in sorted(folder.glob(f"{task}/{method}-{student}-*/{RUN_FILE}"))]
            scores = [run.scores["student"] for run in runs if run.is_finished]
            values = [score[metric] for score in scores]
            results[task][method] = scores
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            if values:
                each = " ".join(f"{value:.4f}" for value in values)
                print(f"  {method:14s} {statistics.mean(values):.4f} ± {spread:.4f}   ({each})")
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
