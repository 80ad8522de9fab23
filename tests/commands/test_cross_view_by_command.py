"""Cross-view training and runs without a teacher as a user gives them: learned, recorded, resumed, shipped, refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from messages import names, unnamed
from run_folders import read_record, write_record
from safetensors.torch import load_file

from emdistill.cli import main
from emdistill.commands.compare import compare
from emdistill.commands.distill import distill
from emdistill.errors import ConfigError
from emdistill.models import load_classifier
from emdistill.options import load_config
from emdistill.runs.record import read_run

NOUNS, FILLERS, WORDS = ("it", "a movie"), ("", "very ", "of "), ("good", "bad", "not")
TEXTS = [f"{noun} was {filler}{word}" for noun in NOUNS for filler in FILLERS for word in WORDS]


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("more") / "more.txt"
    file.write_text("\n".join(TEXTS))
    return str(file)


def words_of(place: Any, output: Path, more: str, *words: str) -> list[str]:
    source = ["--teacher", "none", "--student-source", f"{place.folder}/encoder", "--student", "bilstm:8"]
    text = ["--unlabelled", more, "--labelled-share", "0.5", "--rows", "16", "--method", "cross-view"]
    return place.distill("--output", str(output), *source, *text, *words)


def test_a_bilstm_teaches_itself(place: Any, more: str, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    words = words_of(
        place, run, more, "--training.num_train_epochs=2", "--keep-checkpoints", "--baselines=tfidf,labels"
    )
    assert main(words) == 0
    record, student = read_run(run), load_file(run / "student" / "model.safetensors")
    assert record.teacher is None
    assert {*record.scores} == {"student"}
    assert record.unlabelled is not None
    kept = record.unlabelled["kept"]
    assert record.steps_per_epoch == -(-(16 * round(kept / 16) + kept) // 16)  # as many labelled rows as others
    assert "views" in record.objective["views"]
    assert {*student} == {*load_classifier(run / "student").state_dict()}  # the views are not part of it
    labels = read_run(run / "baselines" / "labels")
    assert [stage.log[-1]["step"] for stage in labels.log] == [stage.log[-1]["step"] for stage in record.log]
    for page in ("report.html", "student/README.md"):
        assert "without a teacher" in (run / page).read_text(encoding="utf-8")

    before = read_record(run)
    write_record(run, before | {"status": "running"})
    shutil.rmtree(run / "checkpoints" / "views" / "finished")
    shutil.rmtree(max((run / "checkpoints" / "views").glob("checkpoint-*"), key=lambda path: int(path.name[11:])))
    assert main([*words, "--resume"]) == 0
    assert all(value.equal(student[name]) for name, value in load_file(run / "student" / "model.safetensors").items())

    capsys.readouterr()
    assert main(["evaluate", "--model", f"{run}/student", "--data", f"{place.folder}/reviews.csv"]) == 0
    assert not unnamed(capsys.readouterr().out, "accuracy")


def test_a_teacher_teaches_the_views_and_the_student(place: Any, more: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(words_of(place, run, more, "--teacher", f"{place.folder}/teacher")) == 0
    record = read_run(run)
    assert {*record.scores} == {"teacher", "student"}
    (objective,) = record.objective.values()
    assert not unnamed(objective, "soft_targets", "views", "hard_labels")


@pytest.mark.parametrize("method", ["soft-targets", "bert-emd", "balanced"])
def test_what_needs_a_teacher_is_refused_without_one(place: Any, more: str, tmp_path: Path, method: str) -> None:
    options = {"teacher": "none", "data": f"{place.folder}/reviews.csv", "text": "body", "label": "stars"}
    options |= {"student_source": f"{place.folder}/encoder", "output": str(tmp_path / "run"), "student": "2"}
    with names(ConfigError, method, "--teacher none", "cross-view", "hard-labels"):
        distill(load_config(**options, method=method))
    with names(ConfigError, "--student bilstm"):
        distill(load_config(**options, method="cross-view"))
    with names(ConfigError, "--teacher none", "--student-source"):
        distill(load_config(**options | {"student_source": None, "method": "hard-labels"}))
    with names(ConfigError, "--teacher none", "--data"):
        distill(load_config(**options | {"data": "", "unlabelled": more, "method": "cross-view"}))
    with names(ConfigError, "--objective.taught_by teacher"):
        distill(
            load_config(
                **options | {"student": "bilstm:8", "method": "cross-view", "objective": {"taught_by": "teacher"}}
            )
        )
    with names(ConfigError, "--teacher none", "--task text"):
        distill(load_config(**options | {"task": "text", "method": "cross-view"}))
    assert not (tmp_path / "run" / "run.json").exists()


def test_views_of_a_tagger_see_the_words_beside(place: Any, more: str, tmp_path: Path) -> None:
    tags = {"good": "B-X", "bad": "B-X", "movie": "B-Y", "book": "B-Y"}
    sentences = [text.split() for text, _ in place.sentences(64)]
    rows = ["\n".join(f"{word}\t{tags.get(word, 'O')}" for word in words) for words in sentences]
    (tmp_path / "tags.conll").write_text("\n\n".join(rows) + "\n", encoding="utf-8")
    run = tmp_path / "run"
    data = ("--kind", "tagging", "--data", str(tmp_path / "tags.conll"), "--training.logging_steps=1")
    words = [each for each in words_of(place, run, more, *data) if each not in place.reviews]
    assert main(words) == 0
    record = read_run(run)
    (log,) = record.log
    views = [entry["terms/views"] for entry in log.log if "terms/views" in entry]
    assert views
    assert all(value > 0 for value in views)
    assert record.scores["student"]


def test_views_are_compared_with_labels_alone_where_nobody_teaches(place: Any, more: str, tmp_path: Path) -> None:
    comparison = compare(
        teacher="none", student_source=f"{place.folder}/encoder", student="bilstm:8", methods="hard-labels,cross-view",
        data=f"{place.folder}/reviews.csv", text="body", label="stars", unlabelled=more, labelled_share=0.5, rows=16,
        seeds="1", output=str(tmp_path / "both"), baselines="tfidf", training={"max_steps": 2, "disable_tqdm": True},
    )  # fmt: skip
    assert [entry.name for entry in comparison.entries] == ["hard-labels", "cross-view"]
    assert not comparison.teacher
    assert not unnamed((tmp_path / "both" / "comparison.md").read_text(encoding="utf-8"), "hard-labels", "cross-view")
