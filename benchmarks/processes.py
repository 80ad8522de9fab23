"""Several processes learn what one does: the same losses, flows and layer weights at equal global batch.

    python benchmarks/processes.py --teacher runs/sst2/teacher --task sst2 --data ../shared/data/glue/SST-2 \\
        --output processes

Each count of processes is one `torchrun … -m emdistill distill` on the CPU (gloo), the global batch split among them.
Dropout is off, for each process draws its own. The table, also in OUTPUT/processes.md, has the largest difference to
one process over all steps, and the seconds of training.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from emdistill.console import Table, markdown
from emdistill.runs.flows import FlowRecord, read_flows
from emdistill.runs.record import read_run


def main(
    teacher: str,
    task: str,
    data: str,
    output: str,
    methods: str = "bert-emd,balanced,tinybert",
    counts: str = "1,2,4",
    steps: int = 20,
    batch: int = 32,
    student: str = "3",
) -> None:
    """Run what is missing, and write the table.

    Args:
        teacher: folder of the fine-tuned teacher.
        task: a task's name.
        data: its folder or file.
        output: folder of all runs.
        methods: methods, separated by commas.
        counts: counts of processes, separated by commas; the first one is what the others are compared with.
        steps: optimizer steps.
        batch: rows per step, of all processes together.
        student: as for `emdistill distill`.
    """
    folder = Path(output)
    calm = without_dropout(Path(teacher), folder / "teacher")
    lines = []
    for method in methods.split(","):
        runs = {}
        for count in map(int, counts.split(",")):
            runs[count] = place = folder / f"{method}-{count}"
            if not (place / "run.json").exists() or not read_run(place).is_finished:
                words = ["--teacher", str(calm), "--task", task, "--data", data, "--student", student]
                words += ["--method", method, "--output", str(place), "--overwrite", "--baselines", "none"]
                words += ["--training.max_steps", str(steps), "--training.logging_steps", "1"]
                words += ["--training.flow_steps", "1", "--training.per_device_train_batch_size", str(batch // count)]
                launch(count, ["distill", *words, "--select", "last", "--training.use_cpu", "true"])
        one = next(iter(runs.values()))
        lines += [[method, str(count), *compared(one, place)] for count, place in runs.items()]
    headings = ["method", "processes", "loss differs by", "flows", "layer weights", "student's weights", "seconds"]
    table = markdown(Table(headings, lines))
    (folder / "processes.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def without_dropout(teacher: Path, place: Path) -> Path:
    """The teacher as it is, but that its students have no dropout."""
    if not place.exists():
        shutil.copytree(teacher, place)
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    config |= {name: 0.0 for name in config if "dropout" in name}
    (place / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return place


def launch(count: int, words: list[str]) -> None:
    """`emdistill WORDS` in so many processes of one thread each."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    subprocess.run(
        [sys.executable, *torchrun, "-m", "emdistill", *words], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def compared(one: Path, other: Path) -> list[str]:
    """Largest differences over all steps: losses (relative), flows, layer weights, the student's weights; seconds."""
    logs = [
        {entry["step"]: entry["loss"] for stage in read_run(run).log for entry in stage.log if "loss" in entry}
        for run in (one, other)
    ]
    losses = max(abs(logs[1][step] - loss) / abs(loss) for step, loss in logs[0].items())
    pairs = list(zip(read_flows(one / "flows.jsonl"), read_flows(other / "flows.jsonl"), strict=True))
    flows = max(largest(ours, theirs, "flows") for ours, theirs in pairs)
    weights = max(
        largest(ours, theirs, side) for ours, theirs in pairs for side in ("student_weights", "teacher_weights")
    )
    students = [load(run) for run in (one, other)]
    parameters = max(float(np.abs(students[0][name] - students[1][name]).max()) for name in students[0])
    seconds = read_run(other).timings["training_seconds"]
    return [*(f"{number:.1e}" for number in (losses, flows, weights, parameters)), f"{seconds:.0f}"]


def load(run: Path) -> dict[str, np.ndarray]:
    """The student's weights."""
    from safetensors.numpy import load_file

    return load_file(run / "student" / "model.safetensors")


def largest(ours: FlowRecord, theirs: FlowRecord, side: str) -> float:
    """The largest difference of two records on one side."""
    numbers = getattr(ours, side), getattr(theirs, side)
    return max(
        (
            float(np.abs(np.subtract(numbers[0][term], numbers[1][term])).max())
            for term in numbers[0]
            if numbers[0][term]
        ),
        default=0.0,
    )


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
