"""A teacher's answers in a file: every form against logits computed by hand, and every row that is no answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from messages import names, unnamed
from numpy.typing import NDArray

from emdistill.data.row_writer import RowWriter
from emdistill.data.rows import Row
from emdistill.data.teacher_answers import answered_rows, is_answers_file, read_teacher_answers
from emdistill.errors import DataError
from emdistill.runs.answers import write_predictions
from emdistill.states import TEACHER_LOGITS
from emdistill.tasks import KINDS
from emdistill.tasks.answers import as_logits, probabilities
from emdistill.tasks.task import Task

LABELS = ("bad", "so", "good")
CLASSES = Task("own", KINDS["classification"], LABELS, ("accuracy",), text="body", label="stars")
SEVERAL = Task("own", KINDS["multi-label"], LABELS, ("micro_f1",), text="body", label="stars")
SCORE = Task("own", KINDS["regression"], (), ("pearson",), text="body", label="stars")
PAIRS = Task("own", KINDS["classification"], LABELS, ("accuracy",), text="a", text_pair="b")
SURE = 1e-6


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def shares_of(path: Path, task: Task, *texts: str) -> NDArray[np.float64]:
    """The probabilities of the answers to these texts, all of which must have one."""
    logits, answered = read_teacher_answers(path, task).answers_of(zip(texts))
    assert answered.all()
    return probabilities(logits.astype(np.float64), task.kind.link)


def softmax(*logits: float) -> NDArray[np.float64]:
    shares = np.exp(np.array(logits))
    return shares / shares.sum()


FORMS: list[tuple[dict[str, Any], NDArray[np.float64]]] = [
    ({"logits": [1.0, -2.0, 0.5]}, softmax(1.0, -2.0, 0.5)),
    ({"logits": {"good": 0.5, "bad": 1.0, "so": -2.0}}, softmax(1.0, -2.0, 0.5)),
    ({"probabilities": [0.2, 0.3, 0.5]}, np.array([0.2, 0.3, 0.5])),
    ({"probabilities": {"good": 0.5, "bad": 0.2, "so": 0.3}}, np.array([0.2, 0.3, 0.5])),
    ({"probabilities": [0.202, 0.303, 0.505]}, np.array([0.2, 0.3, 0.5])),
    ({"probability of so": 0.3, "probability of good": 0.5, "probability of bad": 0.2}, np.array([0.2, 0.3, 0.5])),
    ({"probability_so": 0.3, "probability_good": 0.5, "probability_bad": 0.2}, np.array([0.2, 0.3, 0.5])),
    ({"so": 0.3, "good": 0.5, "bad": 0.2}, np.array([0.2, 0.3, 0.5])),
    ({"prediction": "so", "probability": 0.6}, np.array([0.2, 0.6, 0.2])),
    ({"label": "so", "score": 0.6}, np.array([0.2, 0.6, 0.2])),
    ({"label": "so", "probability": 0.6}, np.array([0.2, 0.6, 0.2])),
    ({"prediction": "so", "score": 0.6}, np.array([0.2, 0.6, 0.2])),
    ({"stars": "good"}, np.array([SURE, SURE, 1.0]) / (1 + 2 * SURE)),
    ({"label": "good"}, np.array([SURE, SURE, 1.0]) / (1 + 2 * SURE)),
    ({"prediction": "good", "stars": "bad"}, np.array([SURE, SURE, 1.0]) / (1 + 2 * SURE)),
]


@pytest.mark.parametrize(("cells", "expected"), FORMS, ids=[" ".join(cells) for cells, _ in FORMS])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_every_form_in_every_type_of_file(
    tmp_path: Path, suffix: str, cells: dict[str, Any], expected: NDArray[np.float64]
) -> None:
    row = {"body": "a good book", "stars": "bad"} | cells
    path = tmp_path / f"answers.{suffix}"
    if suffix == "jsonl":
        write(path, row)
    elif suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        mark, quote = ("\t", "") if suffix == "tsv" else (",", '"')
        written = [json.dumps(cell) if isinstance(cell, list | dict) else str(cell) for cell in row.values()]
        written = [f"{quote}{cell.replace(quote, 2 * quote) if quote else cell}{quote}" for cell in written]
        path.write_text(f"{mark.join(row)}\n{mark.join(written)}\n", encoding="utf-8")
    if "label" in row and "score" not in row:  # the data's own column goes first
        row.pop("stars")
        write(path.with_suffix(".jsonl"), row)
        path = path.with_suffix(".jsonl")
    np.testing.assert_allclose(shares_of(path, CLASSES, " a good book\n")[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"logits": [0.0, 2.0, -2.0]}, [0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))]),
        ({"probabilities": {"so": 0.9, "bad": 0.8, "good": 0.1}}, [0.8, 0.9, 0.1]),
        ({"probability of bad": 1, "probability of so": 0.25, "probability of good": 0}, [1 - SURE, 0.25, SURE]),
        ({"bad": 1, "so": 0, "good": 1}, [1 - SURE, SURE, 1 - SURE]),
        ({"prediction": "bad|good"}, [1 - SURE, SURE, 1 - SURE]),
        ({"stars": ["so"]}, [SURE, 1 - SURE, SURE]),
        ({"stars": []}, [SURE, SURE, SURE]),
        ({"prediction": "[]"}, [SURE, SURE, SURE]),  # as `predict` writes it
        ({"stars": {"bad": 1, "so": 0, "good": 0}}, [1 - SURE, SURE, SURE]),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv"])
def test_several_labels(tmp_path: Path, suffix: str, cells: dict[str, Any], expected: list[float]) -> None:
    path, row = tmp_path / f"answers.{suffix}", {"body": "x"} | cells
    if suffix == "jsonl":
        write(path, row)
    else:
        RowWriter(path.suffix, path, [Row(1, row)]).write(path, [{}])
    np.testing.assert_allclose(shares_of(path, SEVERAL, "x")[0], expected, rtol=1e-4)


@pytest.mark.parametrize("cells", [{"score": 2.5}, {"prediction": "2.5"}, {"logits": [2.5]}, {"stars": 2.5}])
def test_scores(tmp_path: Path, cells: dict[str, Any]) -> None:
    answers = read_teacher_answers(write(tmp_path / "answers.jsonl", {"body": "x"} | cells), SCORE)
    assert answers.logits.tolist() == [[2.5]]
    assert answers.notes == ()


def test_both_texts_of_a_pair_count(tmp_path: Path) -> None:
    rows = [{"a": "x", "b": "y z", "prediction": "bad"}, {"a": "x y", "b": "z", "prediction": "good"}]
    answers = read_teacher_answers(write(tmp_path / "answers.jsonl", *rows), PAIRS)
    logits, answered = answers.answers_of([("x", "y z"), ("x y", "z"), ("x", "z"), ("y z", "x")])
    assert answered.tolist() == [True, True, False, False]
    assert logits.argmax(axis=1).tolist() == [0, 2, 0, 0]
    assert logits[2:].tolist() == [[0, 0, 0]] * 2


def test_the_predictions_of_a_run_are_answers(tmp_path: Path) -> None:
    logits = np.array([[0.1, 0.7, -3.3], [1.5, 0.25, 7.0]], dtype=np.float32)
    dev = {"dev": Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]})}
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, dev, {"dev": logits}, {"dev": -logits})
    with names(DataError, path, "run.json"):  # which says the order of the logits
        read_teacher_answers(path, CLASSES)
    for labels, order in ((LABELS, [0, 1, 2]), (("Good", "bad", "so"), [1, 2, 0])):
        (tmp_path / "run.json").write_text(json.dumps({"task": {"labels": labels}}))
        answers = read_teacher_answers(path, CLASSES)
        np.testing.assert_array_equal(answers.answers_of([("y",), ("x",)])[0], logits[::-1][:, order])
    (tmp_path / "run.json").write_text(json.dumps({"task": {"labels": ["bad", "so"]}}))
    with names(DataError, "run.json", "bad, so", "good"):
        read_teacher_answers(path, CLASSES)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"prediction": "LABEL_1"}, [SURE, 1.0]),
        ({"logits": {"LABEL_1": 0.0, "LABEL_0": 0.0}}, [0.5, 0.5]),
        ({"probability of LABEL_1": 0.8, "probability of LABEL_0": 0.2}, [0.2, 0.8]),
        ({"1.0": 0.8, "0.0": 0.2}, [0.2, 0.8]),
    ],
)
def test_labels_may_be_written_otherwise(tmp_path: Path, cells: dict[str, Any], expected: list[float]) -> None:
    task = Task("own", KINDS["classification"], ("0", "1"), ("accuracy",), text="body", label="stars")
    path = write(tmp_path / "answers.jsonl", {"body": "x"} | cells)
    np.testing.assert_allclose(shares_of(path, task, "x")[0], expected, rtol=1e-5)


def test_a_rounded_share_of_the_likeliest_label_stays_the_greatest(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.jsonl", {"body": "x", "prediction": "good", "probability": 0.333333})
    assert shares_of(path, CLASSES, "x").argmax() in (0, 2)
    np.testing.assert_allclose(shares_of(path, CLASSES, "x")[0], [1 / 3] * 3, rtol=1e-6)


def test_answers_that_contradict_each_other_are_averaged(tmp_path: Path) -> None:
    shares = {"x": [[0.2, 0.3, 0.5], [0.2, 0.3, 0.5], [0.8, 0.1, 0.1]], "y": [[0.1, 0.1, 0.8], [0.1, 0.1, 0.8]]}
    rows = [{"body": text, "probabilities": each} for text, every in shares.items() for each in every]
    path = write(tmp_path / "answers.jsonl", *rows)
    expected = [np.mean(every, axis=0) for every in shares.values()]
    np.testing.assert_allclose(shares_of(path, CLASSES, "x", "y"), expected, rtol=1e-5)
    answers = read_teacher_answers(path, CLASSES)
    assert not unnamed(" ".join(answers.notes), "answers.jsonl", 1)
    assert answers.rows == 5
    close = [{"body": "x", "logits": [5.0, 6.0, 7.0 + 1e-5 * row]} for row in range(2)]  # one answer, rounded twice
    assert read_teacher_answers(write(path, *close), CLASSES).logits.tolist() == [[5.0, 6.0, 7.0]]
    scores = [{"body": "x", "score": score} for score in (1.0, 4.0, 4.0)]
    assert read_teacher_answers(write(path, *scores), SCORE).logits.tolist() == [[3.0]]


def test_rows_without_an_answer_are_counted(tmp_path: Path) -> None:
    rows = [{"body": "x", "logits": [1, 2, 3]}, {"body": "y", "logits": None, "stars": "bad"}, {"body": "z"}]
    answers = read_teacher_answers(write(tmp_path / "answers.jsonl", *rows), CLASSES)
    assert answers.answers_of([("x",), ("y",), ("z",)])[1].tolist() == [True, False, False]
    assert not unnamed(" ".join(answers.notes), 2)
    assert answers.rows == 3
    with names(DataError, "answers.jsonl", "logits"):
        read_teacher_answers(write(tmp_path / "answers.jsonl", *rows[1:]), CLASSES)


@pytest.mark.parametrize(
    ("cells", "tokens"),
    [
        ({"logits": [1.0, 2.0]}, [2, 3]),
        ({"logits": [1.0, float("nan"), 0.0]}, ["nan"]),
        ({"logits": [1.0, -1e39, 0.0]}, ["-1e+39"]),
        ({"logits": "high"}, ["'high'"]),
        ({"logits": {"bad": 1, "so": 1}}, ["good"]),
        ({"logits": {"bad": 1, "so": 1, "god": 1}}, ["'god'", "'good'"]),
        ({"logits": [[1], 2, 3]}, ["[1]"]),
        ({"probabilities": [0.5, -0.1, 0.6]}, ["-0.1"]),
        ({"probabilities": [0.5, 0.1, 0.3]}, [0.9]),
        ({"probabilities": [3.0, 1.0, 0.5]}, ["3.0"]),
        ({"bad": 0.5, "so": "many", "good": 0.5}, ["'many'"]),
        ({"prediction": "god", "probability": 0.6}, ["'god'", "'good'"]),
        ({"prediction": "good", "probability": 1.2}, [1.2]),
        ({"prediction": "good", "probability": 0.3}, [0.3]),
        ({"stars": "1"}, ["'1'", "bad, so, good"]),
        ({"stars": "good", "body": " "}, ["'body'"]),
    ],
)
def test_what_is_no_answer_is_refused_by_its_line(tmp_path: Path, cells: dict[str, Any], tokens: list[Any]) -> None:
    of_form = {"logits": [1, 2, 3], "probabilities": [0.2, 0.3, 0.5], "prediction": "so", "probability": 0.5}
    of_form |= {"stars": "so", **dict.fromkeys(LABELS, "0.2"), "good": "0.6"}
    whole = {"body": "x", **{name: value for name, value in of_form.items() if name in cells}}
    path = write(tmp_path / "answers.jsonl", whole, {"body": "y"} | cells)
    with names(DataError, f"{path}:2", *tokens):
        read_teacher_answers(path, CLASSES)


@pytest.mark.parametrize(
    ("row", "tokens"),
    [
        ({"body": "x", "opinion": "good"}, ["logits", "stars", "body, opinion"]),
        ({"bdy": "x", "stars": "good"}, ["'body'", "'bdy'"]),
        ({"body": "x", "probability_bad": 0.5, "probability_so": 0.5}, ["'good'"]),
        ({"body": "x", **{f"probability_{name}": 0.25 for name in (*LABELS, "fine")}}, ["'fine'"]),
    ],
)
def test_a_file_without_texts_or_answers_is_refused(tmp_path: Path, row: dict[str, Any], tokens: list[Any]) -> None:
    with names(DataError, "answers.jsonl", *tokens):
        read_teacher_answers(write(tmp_path / "answers.jsonl", row), CLASSES)


def test_a_file_of_which_no_row_can_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text("body;bad;so;good\nx,0.2,0.3,0.5\n")
    with names(DataError, f"{tmp_path / 'answers.csv'}:2", 4, 1):
        read_teacher_answers(tmp_path / "answers.csv", CLASSES)


def test_answers_stand_beside_their_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.jsonl", {"body": "x", "logits": [1, 2, 3]})
    answers = read_teacher_answers(path, CLASSES)
    examples = answers.beside(Dataset.from_dict({"text": ["y", "x"], "label": [0, 1]}))
    assert examples[TEACHER_LOGITS][:] == [None, [1, 2, 3]]
    assert answered_rows(answers.beside(examples)).to_list() == [{"text": "x", "label": 1, TEACHER_LOGITS: [1, 2, 3]}]
    with pytest.raises(DataError):
        answered_rows(examples.select([0]))
    plain = Dataset.from_dict({"text": ["y"]})
    assert answered_rows(plain) is plain


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_logits_of_probabilities_give_them_back(link: Any) -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(4), size=50)
    np.testing.assert_allclose(probabilities(as_logits(shares, link), link), shares, rtol=1e-4)
    certain = as_logits(np.eye(3), link)
    assert np.isfinite(certain).all()


def test_a_file_of_rows_is_no_model(tmp_path: Path) -> None:
    assert is_answers_file("answers.CSV")
    assert is_answers_file("answers.jsonl.gz")
    assert not is_answers_file("owner/model")
    (tmp_path / "teacher.json").mkdir()
    assert not is_answers_file(str(tmp_path / "teacher.json"))
