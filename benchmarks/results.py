"""What a student is worth: tasks × teachers × students × methods × seeds of docs/results.md, as protocol.md says.

    python benchmarks/results.py --data ../shared/data/glue --minilm DIR_OR_HUB_ID --mpnet DIR_OR_HUB_ID --output runs/

Each teacher is fine-tuned once per task; then each cell (task, teacher, student) is one `emdistill compare`, in
OUTPUT/TASK/TEACHER-STUDENT. What is finished is not done again, so the same command goes on after Ctrl-C, and with
fewer cells named it does these alone. At the end, all cells that are there are written to OUTPUT/results.json and, as
tables with the command of each, to OUTPUT/results.md and, with charts, to OUTPUT/results.html.
"""

import csv
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from emdistill import finetune
from emdistill.commands.compare import compare
from emdistill.config import CompareConfig, as_command
from emdistill.console import Table, markdown
from emdistill.data.messages import MESSAGES, messages_splits
from emdistill.models.arithmetic import has_bfloat16
from emdistill.options import load_finetune_config, load_options
from emdistill.runs.baseline_record import TITLES, BaselineRecord, read_baselines
from emdistill.runs.comparison import RUNS, EntryResult, PairedDifference, compare_entries, holm, read_comparison
from emdistill.runs.record import RUN_FILE, read_run
from emdistill.show.charts import differences as difference_chart
from emdistill.show.page import Chart, Command, Section, write_sections
from emdistill.show.pareto import pareto_front

LABELS = "hard-labels"
ARMS = (LABELS, "soft-targets", "bert-emd", "balanced")
SEEDS = range(5)
EPOCHS, TEXT_EPOCHS = 10, 1  # of the tasks without further text, and of those with it
SST2_SEED, SST2_LABELLED, SST2_MANY, SST2_UNLABELLED = 42, 2_000, 20_000, 20_000
TEACHERS: dict[str, dict[str, Any]] = {"minilm": {}, "mpnet": {"num_train_epochs": 3, "learning_rate": 3e-5}}
LAYERS = {"minilm": 6, "mpnet": 12}
BASELINES = "tfidf,frozen,static,int8-teacher,int8"
EMD = "balanced@emd"  # the entry that the other mappings of its method are compared with


@dataclass(frozen=True)
class Material:
    """What a task is learned and scored on, as options of `emdistill`; epochs count all rows, labelled or not."""

    options: dict[str, str]
    epochs: float
    unlabelled: str | None = None


def main(
    data: str,
    minilm: str,
    mpnet: str,
    output: str = "runs",
    tasks: str = "messages,sst2-2k,mrpc,rte,stsb,cola,sst2-20k",
    teachers: str = "minilm,mpnet",
    students: str = "3x384",
    arms: str = ",".join(ARMS),
    seeds: str = "5",
    baselines: str = BASELINES,
    epochs: float = EPOCHS,
    text_epochs: float = TEXT_EPOCHS,
    rate: float | None = None,
) -> None:
    """Run what is missing, and write the tables.

    Args:
        data: the folder that holds the GLUE folders.
        minilm: folder or hub id of all-MiniLM-L6-v2.
        mpnet: folder or hub id of all-mpnet-base-v2.
        output: folder of all runs.
        tasks: tasks, comma separated; of none, the tables of what is there are written.
        teachers: minilm, mpnet.
        students: 3x384, 6x384 (MiniLM's layers), half (of the teacher's layers), 4x312 (cut out of the teacher).
        arms: methods, METHOD@MAPPING, or files of a method's options; where both teachers are named, the labels
            alone are trained under MiniLM, and count under MPNet too.
        seeds: as for `emdistill compare`.
        baselines: as for `emdistill compare`; measured in the cells of 3x384.
        epochs: of the tasks without further text.
        text_epochs: of the tasks with further text, and of sst2-20k.
        rate: learning rate of all arms; their recipes' if not given. For other epochs or rates take another output.
    """
    folder = Path(output)
    encoders = {"minilm": minilm, "mpnet": mpnet}
    material = prepare(Path(data), folder / "data", epochs, text_epochs)
    for task in filter(None, tasks.split(",")):
        for teacher in teachers.split(","):
            fine_tune(task, material[task], teacher, encoders[teacher], folder)
            for student in students.split(","):
                # The labels alone have no teacher: one set of runs serves both.
                shared = teacher == "mpnet" and "minilm" in teachers.split(",") and student in ("3x384", "6x384")
                methods = [arm for arm in arms.split(",") if not (shared and arm == LABELS)]
                config = cell_config(task, material[task], teacher, student, minilm, folder, methods, rate)
                compare(load_options(CompareConfig, None, {**config, "seeds": seeds, "baselines": baselines}))
    cells = list(read_cells(folder))
    (folder / "results.json").write_text(
        json.dumps([asdict(cell) for cell in cells], indent=1) + "\n", encoding="utf-8"
    )
    write_tables(folder, cells)
    print(f"{folder / 'results.html'}: {len(cells)} cells")


def prepare(glue: Path, folder: Path, epochs: float = EPOCHS, text_epochs: float = TEXT_EPOCHS) -> dict[str, Material]:
    """Each task's material; files that have to be made are made in `folder`, always the same.

    epochs       of the tasks without further text
    text_epochs  of the others
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {"mrpc": "MRPC", "rte": "RTE", "stsb": "STS-B", "cola": "CoLA"}
    material = {task: Material({"task": task, "data": str(glue / name)}, epochs) for task, name in names.items()}

    with (glue / "SST-2" / "train.tsv").open(encoding="utf-8", newline="") as file:
        rows: dict[str, str] = {}
        for row in csv.DictReader(file, delimiter="\t", quoting=3):
            rows.setdefault(row["sentence"].strip(), row["label"])
    with (glue / "SST-2" / "dev.tsv").open(encoding="utf-8", newline="") as file:
        dev = {row["sentence"].strip(): row["label"] for row in csv.DictReader(file, delimiter="\t", quoting=3)}
    pool = sorted((text, label) for text, label in rows.items() if text not in dev)
    random.Random(SST2_SEED).shuffle(pool)
    scored = write(folder / "sst2-dev.jsonl", dev.items())
    few = write(folder / "sst2-2k.jsonl", pool[:SST2_LABELLED])
    many = write(folder / "sst2-20k.jsonl", pool[:SST2_MANY])
    text = write(folder / "sst2-text.jsonl", pool[SST2_LABELLED : SST2_LABELLED + SST2_UNLABELLED], labelled=False)
    material["sst2-2k"] = Material({"data": few, "dev": scored}, text_epochs, text)
    material["sst2-20k"] = Material({"data": many, "dev": scored}, text_epochs)

    splits = messages_splits()
    scored = write(folder / "messages-dev.jsonl", splits["dev"])
    few = write(folder / "messages-train.jsonl", splits["train"])
    text = write(folder / "messages-text.jsonl", splits["text"], labelled=False)
    material[MESSAGES.name] = Material({"data": few, "dev": scored}, text_epochs, text)
    return material


def write(file: Path, rows: Iterable[tuple[str, str]], *, labelled: bool = True) -> str:
    """JSON Lines of texts, with their labels or without; the file's name."""
    lines = [{"text": text, "label": label} if labelled else {"text": text} for text, label in rows]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(file)


def fine_tune(task: str, material: Material, teacher: str, encoder: str, folder: Path) -> None:
    """The teacher of a task, where it is not there yet."""
    place = folder / task / teacher
    training = {**TEACHERS[teacher], "bf16": has_bfloat16(), "gradient_norm_steps": 0}
    finetune(
        load_finetune_config(
            model=encoder, output=str(place), select="last", training=training,
            resume=(place / RUN_FILE).exists(), **material.options,
        )
    )  # fmt: skip


def cell_config(
    task: str,
    material: Material,
    teacher: str,
    student: str,
    minilm: str,
    folder: Path,
    methods: Sequence[str],
    rate: float | None,
) -> dict[str, Any]:
    """The options of one comparison."""
    born: dict[str, dict[str, Any]] = {
        "3x384": {"student": "3", "student_source": minilm},
        "6x384": {"student": minilm},
        "half": {"student": str(LAYERS[teacher] // 2)},
        "4x312": {"student": "4x312"},
    }
    training = {"num_train_epochs": material.epochs, "bf16": has_bfloat16(), "gradient_norm_steps": 0}
    return {
        "teacher": str(folder / task / teacher),
        "output": str(folder / task / f"{teacher}-{student}"),
        "methods": ",".join(methods),
        "baseline": methods[0],
        "select": "last",
        "unlabelled": material.unlabelled,
        "teacher_cache": "states",
        "training": training | ({"learning_rate": rate} if rate else {}),
        **born[student],
        **material.options,
    }


@dataclass(frozen=True)
class Cell:
    """What the runs of one task, teacher and student say; the labels alone stand beside them.

    entries    one per method, the labels alone first
    commands   method -> the line of its first run
    """

    task: str
    teacher: str
    student: str
    metric: str
    dev_rows: int
    teacher_score: float
    entries: tuple[EntryResult, ...]
    commands: dict[str, str]
    baselines: BaselineRecord | None


def read_cells(folder: Path) -> Iterator[Cell]:
    """The cells of finished runs, by task, teacher and student."""
    for place in sorted(runs.parent for runs in folder.glob(f"*/*-*/{RUNS}")):
        teacher, _, student = place.name.partition("-")
        commands: dict[str, str] = {}
        for name, config in configs(place):
            commands.setdefault(name, as_command("distill", config))
        comparison = read_comparison(place, list(commands), SEEDS) if commands else None
        if comparison is None:
            continue
        entries = [entry for entry in comparison.entries if entry.scores]
        if LABELS not in commands and (beside := read_comparison(place.parent / f"minilm-{student}", [LABELS], SEEDS)):
            entries = [*beside.entries, *entries]
        yield Cell(
            place.parent.name, teacher, student, comparison.metric, comparison.dev_rows,
            comparison.teacher[comparison.metric], tuple(entries), commands, read_baselines(place),
        )  # fmt: skip


def configs(place: Path) -> list[tuple[str, dict[str, Any]]]:
    """(entry, options) of the runs of a comparison, the labels alone first; a run's folder is ENTRY-SEED."""
    files = sorted((place / RUNS).glob(f"*/{RUN_FILE}"))
    found = [(file.parent.name.rpartition("-")[0], read_run(file.parent).config) for file in files]
    return sorted(found, key=lambda pair: pair[0] != LABELS)


def tables(cells: Sequence[Cell]) -> dict[str, Table]:
    """By title: scores, differences with Holm's correction over all of a table, mappings, baselines, every run."""
    by_method = without_mappings(cells)
    methods = list(dict.fromkeys(entry.name for cell in by_method for entry in cell.entries))
    scores, baselines = [], []
    for cell in by_method:
        by_name = {entry.name: entry for entry in cell.entries}
        seeds = max(len(entry.scores) for entry in cell.entries)
        about = (cell.task, cell.metric, cell.teacher, f"{cell.teacher_score:.4f}", cell.student, str(seeds))
        found = (spread(by_name[name], cell.metric, seeds) if name in by_name else "" for name in methods)
        scores.append([*about, *found])
        if cell.baselines:
            baselines += baseline_lines(cell, cell.baselines)
    made = {"Scores": Table(["task", "metric", "teacher", "its score", "student", "seeds", *methods], scores)}
    made |= {f"Differences to {name}, in points": differences(by_method, name) for name in (LABELS, "soft-targets")}
    if mapped := by_mapping(cells):
        made[f"Layer mappings: differences to {EMD}, in points"] = differences(mapped, EMD)
    headings = ["task", "teacher", "model", "score", "MB", "ms per text", "p95", "seconds", "on the front"]
    made["Baselines"] = Table(headings, baselines)
    headings = ["task", "teacher", "student", "method", "score by seed", "seconds", "MB"]
    made["Every run"] = Table(headings, [run_line(cell, entry) for cell in cells for entry in cell.entries])
    return {title: replace(table, words=range(4)) for title, table in made.items()}


def without_mappings(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with the methods as their recipes have them."""
    return [replace(cell, entries=tuple(entry for entry in cell.entries if "@" not in entry.name)) for cell in cells]


def by_mapping(cells: Sequence[Cell]) -> list[Cell]:
    """The cells in which EMD stands, with the same method under every mapping that was run."""
    method = EMD.partition("@")[0]
    return [
        replace(cell, entries=tuple(entry for entry in cell.entries if entry.name.partition("@")[0] == method))
        for cell in cells
        if any(entry.name == EMD for entry in cell.entries)
    ]


def run_line(cell: Cell, entry: EntryResult) -> list[str]:
    """An entry's score by seed, its seconds and megabytes."""
    by_seed = " ".join(f"{score[cell.metric]:.4f}" for _, score in sorted(entry.scores.items()))
    sizes = (f"{entry.mean_seconds:.0f}", f"{(entry.size or 0) / 1e6:.1f}")
    return [cell.task, cell.teacher, cell.student, entry.name, by_seed, *sizes]


def baseline_lines(cell: Cell, record: BaselineRecord) -> list[list[str]]:
    """The best student, its teacher and what needs no distillation; the front is of score and milliseconds."""
    rows = {record.student_name: record.student, f"teacher {cell.teacher}": record.teacher}
    rows |= {TITLES[name]: row for name, row in record.baselines.items() if not row.problem}
    timed = [name for name, row in rows.items() if row.p50]
    counts = [{"score": record.score(rows[name]), "ms": rows[name].p50 or 0.0} for name in timed]
    front = {timed[place] for place in pareto_front(counts, lower=["ms"], higher=["score"])}
    lines = []
    for name, row in rows.items():
        numbers = (record.score(row), (row.bytes or 0) / 1e6, row.p50 or 0.0, row.p95 or 0.0, row.seconds or 0.0)
        written = (f"{number:.3f}" for number in numbers)
        lines.append([cell.task, cell.teacher, name, *written, "yes" if name in front else ""])
    return lines


def differences(cells: Sequence[Cell], baseline: str) -> Table:
    """A line per cell and method: mean, interval, seeds won, p and Holm's p over the whole table."""
    found = compared(cells, baseline)
    tested = [place for place, (_, _, difference) in enumerate(found) if difference.p is not None]
    adjusted = dict(zip(tested, holm([found[place][2].p or 0.0 for place in tested]), strict=True))
    lines = []
    for place, (cell, entry, difference) in enumerate(found):
        low, high = difference.low, difference.high
        interval = "" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
        won = f"{difference.wins} of {difference.wins + difference.ties + difference.losses}"
        p = f"{adjusted[place]:.3f}" if place in adjusted else ""
        pair = (cell.task, cell.teacher, cell.student, entry.name)
        lines.append([*pair, f"{100 * difference.mean:+.1f}", interval, won, p])
    headings = ["task", "teacher", "student", "method", "mean", "95 % interval", "seeds won", "p (Holm)"]
    return Table(headings, lines)


def compared(cells: Sequence[Cell], baseline: str) -> list[tuple[Cell, EntryResult, PairedDifference]]:
    """Every entry with its paired difference to the baseline of its cell."""
    return [
        (cell, entry, entry.difference)
        for cell in cells
        if any(entry.name == baseline for entry in cell.entries)
        for entry in compare_entries(cell.entries, baseline, cell.metric)
        if entry.difference is not None
    ]


def commands(cells: Sequence[Cell]) -> list[str]:
    """The command of each method of each cell."""
    return list(dict.fromkeys(command for cell in cells for command in cell.commands.values()))


def write_tables(folder: Path, cells: Sequence[Cell]) -> None:
    """results.md and results.html: the tables, the differences as a chart, and the commands."""
    made = tables(cells)
    parts = [part for title, table in made.items() for part in (f"## {title}\n", markdown(table))]
    lines = [*parts, "## Commands\n", "```sh", *commands(cells), "```", ""]
    (folder / "results.md").write_text("\n".join(lines), encoding="utf-8")
    charts = []
    for baseline in (LABELS, "soft-targets"):
        rows = [
            (
                f"{cell.task}, {cell.teacher} {cell.student}: {entry.name}",
                list(entry.differences.values()),
                difference.mean,
                (difference.low, difference.high),
            )
            for cell, entry, difference in compared(without_mappings(cells), baseline)
        ]
        title = f"Differences to {baseline}"
        charts += (
            [Chart(title, difference_chart(rows, x="difference of the score"), "Dots: seeds; bar: 95 % interval.")]
            if rows
            else []
        )
    sections = [
        Section("", charts),
        *(Section(title, [table]) for title, table in made.items()),
        Section("Commands", [Command(command) for command in commands(cells)]),
    ]
    write_sections(folder / "results.html", "Is a distilled student worth it?", sections)


def spread(entry: EntryResult, metric: str, seeds: int) -> str:
    """Mean ± standard deviation over seeds; their number where it is not `seeds`."""
    deviation, count = entry.deviation(metric), len(entry.scores)
    return (
        f"{entry.mean(metric):.4f}"
        + ("" if deviation is None else f" ± {deviation:.4f}")
        + ("" if count == seeds else f" ({count})")
    )


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
