"""What a MobileBERT gains by the transfer of feature maps and attention, and by which schedule.

    python benchmarks/mobilebert.py --teacher teacher/ --data train.jsonl --dev dev.jsonl --unlabelled text.jsonl

Students of one shape are distilled from one teacher for as many epochs, alike but for the schedule of --method
mobilebert; `none` learns from the teacher's answers and the labels alone. The last checkpoint is kept, so that nothing
is chosen on the scored set. What is finished is not done again. The table is written to OUTPUT/mobilebert.md, its
numbers to mobilebert.json.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jsonargparse import auto_cli

from emdistill import distill
from emdistill.options import load_config
from emdistill.runs.record import RUN_FILE, read_run

NONE = "none"


@dataclass(frozen=True)
class Row:
    """A schedule on a student: scores by seed in the task's first metric, parameters, seconds of training per run."""

    student: str
    schedule: str
    metric: str
    teacher: float
    scores: tuple[float, ...]
    parameters: int
    seconds: float

    @property
    def cells(self) -> list[str]:
        """As the table has them."""
        spread = f" ± {stdev(self.scores):.3f}" if len(self.scores) > 1 else ""
        by_seed = " ".join(f"{score:.4f}" for score in self.scores)
        return [self.student, self.schedule, f"{fmean(self.scores):.3f}{spread}", by_seed, f"{self.seconds:.0f}"]


def main(
    teacher: str,
    data: str,
    dev: str,
    unlabelled: str | None = None,
    output: str = "runs/mobilebert",
    students: str = "mobilebert:6x384x96x2",
    schedules: str = "progressive,joint,auxiliary,none",
    seeds: int = 2,
    unlabelled_rows: int | None = None,
    epochs: float = 4.0,
    learning_rate: float = 1e-3,
) -> None:
    """Run what is missing, and write the table after every run.

    Args:
        teacher: folder of the fine-tuned teacher.
        data: file of the labelled rows.
        dev: file of the rows that score.
        unlabelled: file of texts without labels.
        output: folder of all runs.
        students: as --student takes them, separated by commas.
        schedules: progressive, joint, auxiliary, none, separated by commas.
        seeds: so many, from 0.
        unlabelled_rows: learn from at most so many texts without labels.
        epochs: of each run, transfer and answers together.
        learning_rate: of each run.
    """
    common: dict[str, Any] = {
        "teacher": teacher, "data": data, "dev": dev, "unlabelled": unlabelled, "unlabelled_rows": unlabelled_rows,
        "select": "last", "baselines": "none", "teacher_cache": "states", "teacher_cache_folder": f"{output}/cache",
        "training": {"num_train_epochs": epochs, "learning_rate": learning_rate, "disable_tqdm": True},
    }  # fmt: skip
    pairs = [(student, schedule) for student in students.split(",") for schedule in schedules.split(",")]
    finished: dict[tuple[str, str], list[Any]] = {pair: [] for pair in pairs}
    for seed in range(seeds):
        for student, schedule in pairs:
            run = Path(output) / f"{student.replace(':', '-')}-{schedule}-{seed}"
            finished[student, schedule].append(learn(run, student, schedule, seed, common))
            write(Path(output), [row(*pair, records) for pair, records in finished.items() if records])
    print((Path(output) / "mobilebert.md").read_text(encoding="utf-8"))


def learn(run: Path, student: str, schedule: str, seed: int, common: dict[str, Any]) -> Any:
    """The record of a run, which is done where it is not finished."""
    begun = (run / RUN_FILE).exists()
    if not begun or not read_run(run).is_finished:
        own: dict[str, Any] = {"method": "mobilebert", "objective": {"transfer": schedule}}
        if schedule == NONE:
            own = {"method": "soft-targets", "objective": {"alpha": 0.5}}
        own |= {"student": student, "seed": seed, "output": str(run), "resume": begun}
        distill(load_config(**common, **own), quiet=True)
    record = read_run(run)
    print(run, record.scores, f"{record.timings['training_seconds']:.0f} s", flush=True)
    return record


def row(student: str, schedule: str, records: list[Any]) -> Row:
    """What the runs of all seeds give."""
    metric = records[0].task.metric
    return Row(
        student,
        schedule,
        metric,
        records[0].scores["teacher"][metric],
        tuple(record.scores["student"][metric] for record in records),
        records[0].student.parameters,
        fmean(record.timings["training_seconds"] for record in records),
    )


def write(folder: Path, rows: list[Row]) -> None:
    """The numbers and the table."""
    (folder / "mobilebert.json").write_text(
        json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
    )
    titles = ["student", "transfer", f"{rows[0].metric} (teacher {rows[0].teacher:.3f})", "by seed", "seconds"]
    lines = [titles, ["---"] * len(titles), *(row.cells for row in rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    (folder / "mobilebert.md").write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
