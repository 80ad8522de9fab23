"""What a bag of word pieces and n-grams keeps of its teacher, and how many texts a second it answers.

    python benchmarks/static_students.py --glue ../shared/data/glue --teachers runs --output runs/static

TEACHERS/TASK/minilm are the teachers, and the tasks are those of results.py. Per task: `distill --student bag` for a
few seeds with nothing else said, TF-IDF on the same labelled rows beside it, and the first seed's student as ONNX
graphs, so that its int8 form is scored too. Then batches of texts of like length are answered on one thread in ONNX
Runtime, in turns, by the bag and by students cut out of the same teacher, whose weights do not matter here; once with
the tokens given and once from the text on, for beside a bag the tokenizer is what takes the time. Seconds are the
processor's, so that what else the machine does counts little. What is finished is not done again. The table is written
to OUTPUT/static_students.md, its numbers to static_students.json.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from datasets import Dataset
from jsonargparse import auto_cli
from results import Material, prepare

from emdistill import distill
from emdistill.baselines.linear import columns
from emdistill.console import Table, markdown
from emdistill.data.read import read_data
from emdistill.models import load_classifier, load_tokenizer
from emdistill.options import load_config
from emdistill.runs.baseline_record import read_baselines
from emdistill.runs.record import RUN_FILE, read_run
from emdistill.runs.student_artifact import StudentArtifact
from emdistill.ship.onnx import OnnxClassifier, export_onnx, open_onnx, open_session, session_logits
from emdistill.ship.onnx_folder import INT8, MODEL, write_onnx_folder
from emdistill.ship.onnx_folder import TOKENIZER as TOKENIZER_FILE
from emdistill.ship.quantize import quantize_dynamic_int8
from emdistill.students import make_student

BATCH, TIMED_TEXTS, MAX_LENGTH, ROUNDS = 32, 256, 128, 5
TOKENIZER = "tokenizer"
FORMS = {"fp32": MODEL, "int8": INT8}

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread for all


@dataclass(frozen=True)
class Row:
    """A task: scores in its first metric, bytes of the model files, texts a second by model, and by the tokenizer."""

    task: str
    student: str
    metric: str
    dev_rows: int
    teacher: float
    scores: tuple[float, ...]
    int8: float
    tfidf: float
    bytes: dict[str, int]
    training_seconds: float
    per_second: dict[str, float]

    def from_text(self, model: str) -> float:
        """Texts a second, the tokenizer's time included."""
        return 1 / (1 / self.per_second[model] + 1 / self.per_second[TOKENIZER])


def main(
    glue: str,
    teachers: str,
    output: str = "runs/static",
    tasks: str = "sst2-2k,messages,mrpc,stsb",
    student: str = "bag",
    beside: str = "4x312",
    seeds: int = 2,
) -> None:
    """Run what is missing, and write the table.

    Args:
        glue: the folder that holds the GLUE folders.
        teachers: the folder that holds TASK/minilm for every task.
        output: folder of all runs.
        tasks: tasks of results.py, comma separated.
        student: bag, or bag:WIDTH.
        beside: students that are timed too, cut out of the teacher, comma separated.
        seeds: so many seeds of every task.
    """
    folder = Path(output)
    material = prepare(Path(glue), folder / "data")
    rows = []
    for task in tasks.split(","):
        teacher, cell = Path(teachers) / task / "minilm", folder / f"{task}-{student.replace(':', '')}"
        for seed in range(seeds):
            learn(cell / str(seed), material[task], teacher, student, seed)
        rows.append(measured(task, student, cell, material[task], teacher, beside.split(","), seeds))
        figures = [asdict(row) for row in rows]
        (folder / "static_students.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (folder / "static_students.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


def learn(run: Path, material: Material, teacher: Path, student: str, seed: int) -> None:
    """A run with nothing said but who teaches whom; the first seed's becomes ONNX graphs."""
    begun = (run / RUN_FILE).exists()
    if not begun or not read_run(run).is_finished:
        distill(
            load_config(
                teacher=str(teacher), student=student, output=str(run), seed=seed, resume=begun,
                unlabelled=material.unlabelled, teacher_cache_folder=str(run.parent / "teacher_cache"),
                baselines="none" if seed else "tfidf", **material.options,
            )
        )  # fmt: skip
    place = run / "onnx"
    if not seed and not (place / TOKENIZER_FILE).exists():
        place.mkdir(exist_ok=True)
        model, tokenizer = StudentArtifact(run).load()
        export_onnx(model, place / MODEL)
        quantize_dynamic_int8(place / MODEL, place / INT8)
        write_onnx_folder(place, model, tokenizer)


def measured(
    task: str, student: str, cell: Path, material: Material, teacher: Path, beside: Sequence[str], seeds: int
) -> Row:
    """The row of a task whose runs are finished."""
    runs = [read_run(cell / str(seed)) for seed in range(seeds)]
    beside_it = read_baselines(cell / "0")
    assert beside_it is not None
    data = read_data(load_config(teacher=str(teacher), output="", **material.options))
    dev, metric, place = next(iter(data.evaluation.values())), data.task.metrics[0], cell / "0" / "onnx"
    in_int8 = open_onnx(place / INT8, threads=1).predict_logits(dev)
    return Row(
        task, student, metric, len(dev), runs[0].scores["teacher"][metric],
        tuple(run.scores["student"][metric] for run in runs),
        data.task.score(in_int8, data.task.gold(dev))[metric], beside_it.score(beside_it.computed["tfidf"]),
        {name: (place / file).stat().st_size for name, file in FORMS.items()},
        fmean(run.timings["training_seconds"] for run in runs),
        texts_per_second(place, dev, teacher, beside),
    )  # fmt: skip


def texts_per_second(folder: Path, dev: Dataset, teacher: Path, beside: Sequence[str]) -> dict[str, float]:
    """Of the exported student in float32 and int8, the students beside it in int8, and the tokenizer alone."""
    own = {name: open_onnx(folder / file, threads=1) for name, file in FORMS.items()}
    texts, pairs = columns(dev.select(range(min(TIMED_TEXTS, len(dev)))))
    first = own["int8"]
    encoded = sorted(first.encode(texts, pairs, max_length=MAX_LENGTH), key=len)
    batches = [first.pad(encoded[start : start + BATCH]) for start in range(0, len(encoded), BATCH)]
    sessions = {name: classifier.session for name, classifier in own.items()}
    sessions |= {f"{spec} int8": int8_session(spec, teacher) for spec in beside}

    def answers(session: Any) -> Callable[[], object]:
        return lambda: [session_logits(session, batch) for batch in batches]

    calls = {name: answers(session) for name, session in sessions.items()} | {TOKENIZER: reads(first, texts, pairs)}
    seconds = [{name: processor_seconds(call) for name, call in calls.items()} for _ in range(ROUNDS)]
    return {name: len(texts) / median(each[name] for each in seconds) for name in calls}


def processor_seconds(call: Callable[[], object]) -> float:
    """What one call takes of this process's processor time; an untimed one comes first."""
    call()
    begun = time.process_time()
    call()
    return time.process_time() - begun


def reads(classifier: OnnxClassifier, texts: Sequence[str], pairs: Sequence[str] | None) -> Callable[[], object]:
    """Texts into padded batches, as one answers them."""

    def read() -> None:
        encoded = sorted(classifier.encode(texts, pairs, max_length=MAX_LENGTH), key=len)
        for start in range(0, len(encoded), BATCH):
            classifier.pad(encoded[start : start + BATCH])

    return read


def int8_session(spec: str, teacher: Path) -> Any:
    """A student cut out of the teacher at random, in int8."""
    model, tokenizer = load_classifier(teacher), load_tokenizer(teacher)
    labels = tuple(model.config.id2label.values()) if model.config.num_labels > 1 else ()
    student, _ = make_student(spec, model, tokenizer, labels=labels, birth="random")
    with tempfile.TemporaryDirectory() as place:
        export_onnx(student, Path(place) / MODEL)
        quantize_dynamic_int8(Path(place) / MODEL, Path(place) / INT8)
        return open_session(Path(place) / INT8, threads=1)


def table(rows: Sequence[Row]) -> str:
    """Markdown: scores, and what they cost."""
    scores, speeds = [], []
    for row in rows:
        by_seed = " ".join(f"{score:.4f}" for score in row.scores)
        about = [row.task, row.metric, str(row.dev_rows), f"{row.teacher:.4f}", f"{fmean(row.scores):.4f}", by_seed]
        sizes = [f"{row.bytes[form] / 1e6:.1f}" for form in ("fp32", "int8")]
        scores.append([*about, f"{row.int8:.4f}", f"{row.tfidf:.4f}", *sizes])
        models = [name for name in row.per_second if name != TOKENIZER]
        slowest = min(models, key=lambda name: row.per_second[name])
        for name in models:
            given, whole = row.per_second[name], row.from_text(name)
            times = (given / row.per_second[slowest], whole / row.from_text(slowest))
            named = f"{row.student} {name}" if name in row.bytes else name
            speeds.append([row.task, named, f"{given:,.0f}", f"{whole:,.0f}", *(f"{each:.1f}" for each in times)])
        speeds.append([row.task, TOKENIZER, f"{row.per_second[TOKENIZER]:,.0f}", "", "", ""])
    of_scores = ["task", "metric", "dev rows", "teacher", "student", "by seed", "in int8", "TF-IDF", "MB", "MB int8"]
    of_speeds = ["task", "model", "texts per second, tokens given", "from the text on", "times", "from the text on"]
    return "\n".join([markdown(Table(of_scores, scores)), markdown(Table(of_speeds, speeds, words=(0, 1)))])


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
