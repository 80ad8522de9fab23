"""Text without labels as a user gives it: what a run learns from, says and records; resumed, compared, refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from messages import names, unnamed
from run_folders import read_record, write_record

from emdistill import distill
from emdistill.cli import main
from emdistill.commands.compare import compare
from emdistill.errors import OutputError
from emdistill.runs.record import read_run

TEXTS = [
    f"{noun} was {word} {number}" for noun in ("it", "a movie") for word in ("good", "bad") for number in range(12)
]


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> str:
    """48 texts; one of them stands there twice, one is a labelled row."""
    file = tmp_path_factory.mktemp("more") / "more.jsonl"
    rows = [*TEXTS, TEXTS[0].upper(), "The movie was bad!"]
    file.write_text("".join(json.dumps({"body": text}) + "\n" for text in rows))
    return str(file)


def options_of(place: Any, folder: Path, more: str) -> dict[str, Any]:
    return {
        "teacher": f"{place.folder}/teacher",
        "data": f"{place.folder}/reviews.csv",
        "text": "body",
        "label": "stars",
        "student": "2",
        "rows": 40,
        "baselines": "none",
        "unlabelled": more,
        "output": str(folder / "run"),
        "training": {"learning_rate": 5e-3, "per_device_train_batch_size": 16, "disable_tqdm": True},
    }


def steps_of(run: Path) -> list[int]:
    """The last step of every stage."""
    return [stage.log[-1]["step"] for stage in read_run(run).log]


def test_a_run_learns_from_both_and_says_so(place: Any, more: str, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    assert main(place.distill("--output", str(run), "--rows=40", "--unlabelled", more)) == 0
    printed, record = capsys.readouterr().out, read_run(run)
    assert record.unlabelled is not None
    kept = record.unlabelled["kept"]
    assert 40 < kept < 50
    assert record.unlabelled["read"] == 50 == sum(record.unlabelled.values()) - 50
    assert record.unlabelled["repeated"] >= 1
    assert record.rows["train"] == 40
    assert steps_of(run) == [record.steps_per_epoch] == [-(-(40 + kept) // 16)]
    assert len(record.hashes["unlabelled more.jsonl"]) == 64
    assert not unnamed(printed, 40, kept, record.steps_per_epoch)
    for file in (run / "report.html", run / "student" / "README.md"):
        assert not unnamed(file.read_text(), f"{kept} of 50", "more.jsonl")
    assert not (run / "teacher_cache").exists()


def test_a_stage_without_a_teacher_takes_as_many_steps(place: Any, more: str, tmp_path: Path) -> None:
    options = options_of(place, tmp_path, more)
    steps = {}
    for name, method in {
        "joint": {"method": "bert-emd"},
        "labels": {"method": "hard-labels"},
        "two": {"method": "tinybert"},
        "phases": {"objective": {"schedule": "two-phase", "intermediate_share": 0.5, "alpha": 0.0}},
    }.items():
        run = tmp_path / name
        training = options["training"] | {"num_train_epochs": 2, "gradient_accumulation_steps": 2}
        distill(**options | method | {"output": str(run), "training": training}, quiet=True)
        steps[name] = steps_of(run)
    record = read_run(tmp_path / "joint")
    assert steps["joint"] == steps["labels"] == [2 * record.steps_per_epoch]
    assert sum(steps["two"]) - 2 * record.steps_per_epoch in (0, 1)  # each of its stages is rounded up
    assert steps["phases"] == [record.steps_per_epoch] * 2
    epochs = [stage.log[-1]["epoch"] for stage in read_run(tmp_path / "phases").log]
    assert epochs[0] == pytest.approx(1)  # all rows
    assert epochs[1] > 1.5  # the labelled ones, again and again


def test_a_resumed_run_ends_as_an_uninterrupted_one(place: Any, more: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--unlabelled", more, "--objective.alpha=0.5", "--training.num_train_epochs=2", "--keep_checkpoints"]
    words += ["--output", str(run)]
    assert main(place.distill(*words)) == 0
    student = (run / "student" / "model.safetensors").read_bytes()
    record = read_record(run)
    write_record(run, record | {"status": "running"})
    shutil.rmtree(run / "checkpoints" / "joint" / "finished")
    steps = sorted((run / "checkpoints" / "joint").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    shutil.rmtree(steps[-1])
    shutil.rmtree(run / "teacher_cache")
    assert main(place.distill(*words, "--resume")) == 0
    assert (run / "student" / "model.safetensors").read_bytes() == student
    assert read_record(run)["unlabelled"] == record["unlabelled"]
    other = Path(shutil.copy(more, tmp_path / "more.jsonl"))
    words[1] = str(other)
    assert main(place.distill(*words, "--resume")) == 0  # another place, the same text
    other.write_text(other.read_text() + '{"body": "another one"}\n')
    options = options_of(place, tmp_path, str(other)) | {"objective": {"alpha": 0.5}, "resume": True}
    with names(OutputError, "more.jsonl", "--overwrite"):
        distill(**options, quiet=True)


def test_the_answers_to_all_rows_are_cached_and_shared(place: Any, more: str, tmp_path: Path) -> None:
    options = options_of(place, tmp_path, more) | {
        "method": "soft-targets", "objective": {"alpha": 0.5}, "teacher_cache_folder": str(tmp_path / "cache"),
    }  # fmt: skip
    distill(**options, quiet=True)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock"}
    (index,) = (tmp_path / "cache").glob("*/index.json")
    record = read_run(tmp_path / "run")
    assert record.unlabelled is not None
    assert json.loads(index.read_text())["rows"] == 40 + record.unlabelled["kept"]
    distill(**options | {"output": str(tmp_path / "again"), "teacher_cache": "none"}, quiet=True)
    distill(**options | {"output": str(tmp_path / "third")}, quiet=True)
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock"}
    students = [(tmp_path / name / "student" / "model.safetensors").read_bytes() for name in ("run", "third")]
    assert students[0] == students[1]


def test_a_comparison_is_at_equal_steps(place: Any, more: str, tmp_path: Path) -> None:
    options = options_of(place, tmp_path, more)
    options["training"] |= {"num_train_epochs": 1}
    comparison = compare(methods="hard-labels,soft-targets", seeds="3,", **options)
    runs = [tmp_path / "run" / "runs" / f"{name}-3" for name in ("hard-labels", "soft-targets")]
    assert steps_of(runs[0]) == steps_of(runs[1])
    assert comparison.learned_from == (read_run(runs[0]).learned_from,)
    assert len(list((tmp_path / "run" / "teacher_cache").glob("*.arrow"))) == 1
    assert "student, labels alone" in (runs[1] / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--unlabelled-rows=5"], ["--unlabelled-rows", "--unlabelled"]),
        (["--unlabelled={more}", "--unlabelled-rows=0"], ["--unlabelled-rows", 0, 1]),
        (["--unlabelled={more},{more}.txt"], ["more.jsonl.txt"]),
        (["--unlabelled={data}"], ["reviews.csv", 160, 0]),
        (["--unlabelled={more}", "--task=text"], ["--unlabelled", "--task"]),
    ],
)
def test_what_cannot_be_used_is_refused(
    place: Any, more: str, tmp_path: Path, capsys: Any, words: list[str], named: list[object]
) -> None:
    words = [word.format(more=more, data=f"{place.folder}/reviews.csv") for word in words]
    assert main(place.distill("--output", f"{tmp_path}/run", *words)) == 2
    assert not unnamed(capsys.readouterr().err, *named)
    assert not (tmp_path / "run" / "run.json").exists()


def test_variants_of_such_text_are_learned_from_beside_it(place: Any, more: str, tmp_path: Path, capsys: Any) -> None:
    """They were made apart from the same texts, so none of them is left out."""
    variants = tmp_path / "variants.jsonl"
    words = ["--teacher", f"{place.folder}/teacher", "--data", f"{place.folder}/reviews.csv", *place.reviews]
    assert main(["augment", *words, "--unlabelled", more, "--copies=2", "--output", str(variants)]) == 0
    made = len(variants.read_text().splitlines())
    assert not unnamed(capsys.readouterr().out, made, 50)
    kept = []
    for files in (more, str(variants), f"{more},{variants}"):
        run = tmp_path / f"run-{len(kept)}"
        assert main(place.distill("--output", str(run), "--rows=40", "--unlabelled", files)) == 0
        kept.append(read_run(run).rows["unlabelled"])
    assert kept[1] == made > 30
    assert kept[0] < kept[2] <= kept[0] + made
    assert main(place.distill("--output", f"{tmp_path}/other", "--augmented", str(variants))) == 2
    assert not unnamed(capsys.readouterr().err, "variants.jsonl:1", "--unlabelled")


def test_a_teacher_and_text_are_enough(place: Any, tmp_path: Path, capsys: Any) -> None:
    """Scores are agreement with the teacher then; with a labelled dev they are scores."""
    texts = [f"{text} and {number}" for number, (text, _) in enumerate(place.sentences(200))]
    (tmp_path / "text.txt").write_text("\n".join(texts))
    run = tmp_path / "run"
    words = ["--teacher", f"{place.folder}/teacher", "--unlabelled", f"{tmp_path}/text.txt", "--student", "2"]
    words += [*place.fast, *place.quiet, "--training.num_train_epochs=1", "--baselines=none"]
    assert main(["distill", *words, "--output", str(run)]) == 0
    record, printed = read_run(run), capsys.readouterr().out
    assert record.task is not None
    assert record.task.labels == ("bad", "good")
    assert record.scores["teacher"]["accuracy"] == 1
    assert list(record.task.evaluation_rows) == ["the teacher's answers"]
    assert record.unlabelled is not None
    assert record.rows["train"] + record.rows["chosen on"] + sum(record.task.evaluation_rows.values()) == 40
    for text in (printed, (run / "report.html").read_text(), (run / "student" / "README.md").read_text()):
        assert "agreement with the teacher" in text
    assert "agrees with its teacher" in (run / "report.html").read_text()
    assert main(["export", str(run), "--onnx"]) == 2
    assert not unnamed(capsys.readouterr().err, "--data")

    dev = ["--dev", f"{place.folder}/reviews.csv", "--text", "body", "--label", "stars"]
    assert main(["distill", *words, *dev, "--output", f"{tmp_path}/gold"]) == 0
    assert read_record(tmp_path / "gold")["task"]["evaluation_rows"] == {"dev": 160}
    comparison = compare(
        methods="soft-targets,patient-kd", seeds="1,", teacher=f"{place.folder}/teacher",
        unlabelled=f"{tmp_path}/text.txt", student="2", output=str(tmp_path / "comparison"), baselines="none",
        training={"max_steps": 2, "disable_tqdm": True},
    )  # fmt: skip
    assert comparison.dev == "the teacher's answers"

    capsys.readouterr()
    assert main(["distill", "--teacher", f"{place.folder}/teacher", "--output", f"{tmp_path}/none"]) == 2
    assert not unnamed(capsys.readouterr().err, "--data", "--unlabelled")
    (tmp_path / "text.txt").write_text("\n".join(texts[:50]))
    assert main(["distill", *words, "--output", f"{tmp_path}/few"]) == 2
    assert not unnamed(capsys.readouterr().err, "text.txt", 10, 20)
