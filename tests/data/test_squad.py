import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from messages import names

from emdistill.data.files import Columns
from emdistill.data.read import read_task_data
from emdistill.data.squad import read_questions
from emdistill.errors import DataError

CONTEXT = "Ada Lovelace met Charles Babbage in London."
ADA = {"text": "Ada Lovelace", "answer_start": 0}
WHO = {"id": "q1", "question": "Who met Babbage?", "answers": [ADA]}
WHY = {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True}


def squad(path: Path, *qas: dict[str, Any], indent: int | None = None) -> Path:
    whole = {"version": "1.1", "data": [{"title": "Ada", "paragraphs": [{"context": CONTEXT, "qas": list(qas)}]}]}
    content = json.dumps(whole, indent=indent).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def questions(path: Path, *columns: Columns) -> list[tuple[int, str, str, list[list[int]]]]:
    read = read_questions(path, *columns)
    return list(zip(read.lines, read.texts["text"], read.texts["text_pair"], read.label, strict=True))


def rows(path: Path, *cells: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, cells)))
    return path


@pytest.mark.parametrize("name", ["dev.json", "dev.json.gz"])
def test_squad(tmp_path: Path, name: str) -> None:
    read = questions(squad(tmp_path / name, WHO, WHY))
    assert read == [(1, "Who met Babbage?", CONTEXT, [[0, 12]]), (1, "Why?", CONTEXT, [])]


@pytest.mark.parametrize("answers", [[ADA], {"text": ["Ada Lovelace"], "answer_start": [0]}])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_rows(tmp_path: Path, name: str, answers: Any) -> None:
    row = {"question": "Who?", "context": CONTEXT, "answers": answers}
    assert questions(rows(tmp_path / name, row)) == [(1, "Who?", CONTEXT, [[0, 12]])]
    path = rows(tmp_path / name, row, row | {"answers": {"text": [], "answer_start": []}})
    assert [spans for *_, spans in questions(path)] == [[[0, 12]], []]


@pytest.mark.parametrize("answers", [[ADA], {"text": ["Ada Lovelace"], "answer_start": [0]}])
def test_csv_holds_answers_as_json(tmp_path: Path, answers: Any) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        head = ["question", "context", "answers", "is_impossible"]
        csv.writer(file).writerows([head, ["Who?", CONTEXT, json.dumps(answers), "False"]])
    assert questions(tmp_path / "a.csv") == [(2, "Who?", CONTEXT, [[0, 12]])]


@pytest.mark.parametrize(
    "change",
    [
        {"answers": [{"text": "Lovelace", "answer_start": 5}]},
        {"answers": [{"text": "Ada", "answer_start": -43}]},
        {"answers": [{"text": "Ada", "answer_start": "0"}]},
        {"answers": [{"text": " ", "answer_start": 3}]},
        {"answers": ["Ada"]},
        {"answers": "Ada"},
        {"answers": None},
        {"answers": {"text": ["Ada"], "answer_start": []}},
        {"is_impossible": True},
        {"is_impossible": "True"},
        {"is_impossible": "perhaps"},
        {"is_impossible": False, "answers": []},
        {"question": " "},
        {"question": "\ud83d"},
        {"id": "q2"},
    ],
)
def test_bad_questions_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    bad = WHO | change
    path = squad(tmp_path / "a.json", WHY, bad, indent=1)
    line = max(at for at, text in enumerate(path.read_text().splitlines(), start=1) if f'"id": "{bad["id"]}"' in text)
    with names(DataError, f"{path}:{line}", bad["id"]):
        read_questions(path)


@pytest.mark.parametrize(
    "content", ["", '{"data": []}', '{"data": [{"paragraphs": 3}]}', '{"data": 3}', '{"data": [{}]}', "[1]"]
)
def test_files_that_hold_no_questions(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with names(DataError, path):
        read_questions(path)


def test_a_hub_dataset_has_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {"question": "Who?", "context": CONTEXT, "answers": {"text": ["Ada Lovelace"], "answer_start": [0]}}
    splits = {"train": Dataset.from_list([cells, cells]), "validation": Dataset.from_list([cells])}
    monkeypatch.setattr("datasets.load_dataset", lambda name: splits)
    read = read_task_data("some/questions", kind="span-answers")
    assert read.train["label"][:] == [[[0, 12]]] * 2
    assert read.evaluation["dev"]["text_pair"][:] == [CONTEXT]
    wrong = cells | {"answers": {"text": ["Ada"], "answer_start": [1]}}
    splits["validation"] = Dataset.from_list([cells, wrong])
    with names(DataError, "some/questions (validation):2", "'Ada'"):
        read_task_data("some/questions", kind="span-answers")


def test_a_folder_holds_one_file_of_each(tmp_path: Path) -> None:
    squad(tmp_path / "train-v1.1.json", WHO)
    dev = squad(tmp_path / "dev-v1.1.json", WHO)
    read = read_task_data(str(tmp_path), task="squad")
    assert [file.path.name for file in read.files] == ["train-v1.1.json", "dev-v1.1.json"]
    squad(tmp_path / "train-v2.0.json", WHO)
    with names(DataError, tmp_path, "train-v2.0.json"):
        read_task_data(str(tmp_path), task="squad")
    assert len(read_task_data(str(dev), dev=str(dev)).train) == 1


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", {"q": "Who?", "passage": CONTEXT, "spans": [ADA]})
    assert questions(path, Columns("q", "passage", "spans")) == [(1, "Who?", CONTEXT, [[0, 12]])]
    read = read_task_data(str(path), dev=str(path), kind="span-answers", text="q", text_pair="passage", label="spans")
    assert (read.task.text, read.task.text_pair, read.task.label) == ("q", "passage", "spans")
    with names(DataError, "'question'", "passage"):
        read_task_data(str(path), dev=str(path), kind="span-answers")


def test_questions_without_an_answer_are_counted_once_per_file(tmp_path: Path) -> None:
    scored = squad(tmp_path / "scored.json", WHO, WHY)
    (note,) = read_task_data(str(scored), dev=str(scored)).notes
    assert str(scored) in note
    assert "1 of 2" in note
    further = squad(tmp_path / "further.json", WHO | {"id": "q3"}, WHY | {"id": "q4"}, WHY | {"id": "q5"})
    assert len(read_task_data(str(scored), dev=str(further)).notes) == 2
