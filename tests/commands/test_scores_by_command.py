"""Several scores by command: a card that runs, a teacher that is a file, text alone, one task of a mixture."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_folders import read_record
from transformers import pipeline

from emdistill.cli import main
from emdistill.commands.evaluate import evaluate_model
from emdistill.models import load_classifier
from emdistill.models.encoder import load_tasks
from emdistill.runs.answers import PREDICTIONS, read_predictions
from emdistill.runs.record import read_run

TEXTS = ("the movie was good", "a bad book", "it is not very good and it was not the book", "the bad movie", "a book")
LABEL = ["--label", "valence,arousal"]


def text_of(number: int) -> str:
    return f"{TEXTS[number % 5]} {TEXTS[number // 5 % 5]} {'very ' * (number // 25)}".strip()


@pytest.fixture(scope="module")
def folder(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """feelings.csv, a teacher of them, and more.txt."""
    folder = tmp_path_factory.mktemp("scores")
    rows = [
        f"{text},{1.5 + ('good' in text) - 2 * ('bad' in text)},{'' if number % 7 == 0 else 40 * ('book' in text)}\n"
        for number, text in enumerate(map(text_of, range(80)))
    ]
    (folder / "feelings.csv").write_text("text,valence,arousal\n" + "".join(rows))
    (folder / "more.txt").write_text("".join(f"not {text_of(number)}\n" for number in range(125)))
    words = ["--model", f"{place.folder}/encoder", "--data", str(folder / "feelings.csv"), *LABEL, *place.fast]
    words += [*place.quiet, "--training.num_train_epochs=2", "--output", str(folder / "teacher")]
    assert main(["finetune", *words]) == 0
    return folder


def distil(place: Any, output: Path, *words: str) -> None:
    words = (*words, *place.fast, *place.quiet, "--check_teacher=false", "--baselines=none")
    assert main(["distill", *words, "--training.num_train_epochs=1", "--output", str(output)]) == 0


def test_the_teachers_answers_in_a_file_teach_the_same_scores(place: Any, folder: Path, tmp_path: Path) -> None:
    answers, model = tmp_path / "answers.csv", str(folder / "teacher")
    words = ["--model", model, "--input", str(folder / "feelings.csv"), "--text", "text", "--output", str(answers)]
    assert main(["predict", *words]) == 0
    assert answers.read_text().splitlines()[0] == "text,valence,arousal,score of valence,score of arousal"
    words = ["--data", str(folder / "feelings.csv"), *LABEL, "--student=1", "--student-source", model]
    distil(place, tmp_path / "run", "--teacher", str(answers), *words)
    distil(place, tmp_path / "same", "--teacher", model, *words[:-2], "--method=soft-targets")
    of_file, of_model = (read_predictions(tmp_path / run / PREDICTIONS)["dev"] for run in ("run", "same"))
    assert of_file.teacher == pytest.approx(of_model.teacher, abs=1e-5)
    assert of_file.student == pytest.approx(of_model.student, abs=1e-3)


def test_a_score_that_never_changes_is_named_for_nothing_correlates_with_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "same.csv"
    for scores, named in ((("1,2", "3,2", "2,"), ["arousal"]), (("1,", "1,"), ["valence"]), (("1,2", "3,4"), [])):
        file.write_text("text,valence,arousal\n" + "".join(f"a book,{cells}\n" for cells in scores))
        evaluate_model(str(folder / "teacher"), str(file))
        said = capsys.readouterr().err
        assert [name for name in ("valence", "arousal") if name in said] == named


def test_text_alone_is_answered_with_every_score_and_the_card_reads_them(
    place: Any, folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["--teacher", str(folder / "teacher"), "--unlabelled", str(folder / "more.txt"), "--student=1"]
    distil(place, run, *words)
    task = read_run(run).task
    assert task is not None
    assert (task.kind, task.labels) == ("scores", ("valence", "arousal"))
    card = (run / "student" / "README.md").read_text()
    assert "top_k=None" in card
    assert "`valence`, `arousal`" in card
    answer = pipeline("text-classification", model=str(run / "student"))
    (result,) = answer(["a bad book"], top_k=None, function_to_apply="none")
    assert {each["label"] for each in result} == {"valence", "arousal"}


def test_several_scores_are_a_task_of_a_mixture(place: Any, folder: Path, tmp_path: Path) -> None:
    entries = [
        {"name": "feelings", "data": str(folder / "feelings.csv"), "label": "valence,arousal"},
        {"name": "one", "data": str(folder / "feelings.csv"), "label": "valence", "teacher": str(tmp_path / "one")},
    ]
    words = ["--model", f"{place.folder}/encoder", "--data", str(folder / "feelings.csv"), "--label=valence"]
    words += [*place.fast, *place.quiet, "--kind=regression", "--output", str(tmp_path / "one")]
    assert main(["finetune", *words, "--training.num_train_epochs=1"]) == 0
    entries[1]["kind"] = "regression"
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump({"tasks": entries}))
    words = ["--teacher", str(folder / "teacher"), "--data", str(tmp_path / "tasks.yaml"), "--student=1"]
    distil(place, tmp_path / "run", *words)
    scores = read_record(tmp_path / "run")["scores"]["student"]
    assert {"feelings/pearson", "feelings/spearman", "one/pearson"} <= set(scores)
    student = tmp_path / "run" / "student"
    assert load_tasks(student).outputs["feelings"].labels == ("valence", "arousal")
    assert load_classifier(student, task="feelings").config.num_labels == 2
    (tmp_path / "new.jsonl").write_text(json.dumps({"text": "a book"}) + "\n")
    words = ["--model", str(student), "--head=feelings", "--input", str(tmp_path / "new.jsonl")]
    assert main(["predict", *words, "--output", str(tmp_path / "scored.jsonl")]) == 0
    assert {"score of valence", "score of arousal"} < set(json.loads((tmp_path / "scored.jsonl").read_text()))
