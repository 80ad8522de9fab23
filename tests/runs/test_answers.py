"""predictions.jsonl: what is written is read back, number by number, and a damaged line is named."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from messages import names

from emdistill.errors import DataError
from emdistill.runs.answers import read_predictions, teacher_logits, write_predictions


@pytest.fixture
def line() -> dict[str, Any]:
    return {
        "set": "dev", "row": 0, "text": "a", "text_pair": None, "label": 1, "teacher": [0.1, 2], "student": [1.0, -1.0],
    }  # fmt: skip


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_sets_texts_and_float32_logits_come_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    evaluation = {
        "dev": Dataset.from_dict({"text": ["ä\n\u2028", "<b>"], "text_pair": ["x", ""], "label": [1, 0]}),
        "mismatched": Dataset.from_dict({"text": ["c"], "text_pair": ["d"], "label": [2]}),
    }
    sizes = {"dev": (2, 3), "mismatched": (1, 3)}
    teacher, student = (
        {name: (random.normal(size=size) * 1e3).astype(np.float32) for name, size in sizes.items()} for _ in range(2)
    )
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, evaluation, teacher, student)
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.jsonl"]
    found = read_predictions(path)
    assert list(found) == list(teacher_logits(path) or {}) == ["dev", "mismatched"]
    assert teacher_logits(tmp_path / "absent") is None
    for name, examples in evaluation.items():
        assert len(found[name]) == len(examples)
        assert found[name].texts == list(examples["text"])
        assert found[name].pairs == list(examples["text_pair"])
        assert found[name].labels.tolist() == list(examples["label"])
        assert found[name].teacher.dtype == np.float32
        np.testing.assert_array_equal(found[name].teacher, teacher[name])
        np.testing.assert_array_equal(found[name].student, student[name])


def test_scores_of_single_sentences(tmp_path: Path) -> None:
    evaluation = {"dev": Dataset.from_dict({"text": ["a", "b"], "label": [0.5, 4.0]})}
    logits = {"dev": np.array([[0.1], [3.9]], dtype=np.float32)}
    write_predictions(tmp_path / "p", evaluation, logits, logits)
    assert json.loads((tmp_path / "p").read_text().splitlines()[1]) == {
        "set": "dev", "row": 1, "text": "b", "text_pair": None, "label": 4.0, "teacher": [3.9], "student": [3.9],
            "crc32": "f71e5e0e",
    }  # fmt: skip
    assert read_predictions(tmp_path / "p")["dev"].pairs == [None, None]


@pytest.mark.parametrize(
    ("change", "tokens"),
    [
        ({"row": 2}, ["dev", 1, 2]),
        ({"row": True}, ["row"]),
        ({"text": 3}, ["text"]),
        ({"text_pair": 3}, ["text_pair"]),
        ({"label": "good"}, [re.compile("^.*label")]),
        ({"label": 2}, ["'label'", 1]),
        ({"label": 0.5}, ["'label'", 0.5]),
        ({"label": [1, 0, 1]}, ["label"]),
        ({"label": [1]}, ["label"]),
        ({"teacher": []}, ["teacher"]),
        ({"teacher": [1, "2"]}, ["teacher.1"]),
        ({"student": [1, 2, 3]}, ["2 and 3"]),
        ({"set": None}, ["set"]),
        ({"further": 1}, ["further"]),
    ],
)
def test_a_line_that_is_no_row_is_named(
    tmp_path: Path, line: dict[str, Any], change: dict[str, Any], tokens: list[Any]
) -> None:
    path = write(tmp_path / "predictions.jsonl", line, line | {"row": 1} | change)
    with names(DataError, "predictions.jsonl:2", *tokens):
        read_predictions(path)


def test_broken_and_empty_files_are_refused(tmp_path: Path, line: dict[str, Any]) -> None:
    whole = json.dumps(line)
    for broken in (whole[:-20], whole.replace("0.1", "NaN"), "[]"):
        with pytest.raises(DataError, match=r"p\.jsonl:1: "):
            read_predictions(write(tmp_path / "p.jsonl", broken))
    with pytest.raises(DataError, match="no row was written"):
        read_predictions(write(tmp_path / "p.jsonl"))
