"""Tagged sentences as a task's data: which tags there are, how plain text is cut, what is refused and where."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from messages import names

from emdistill.data.read import read_task_data
from emdistill.errors import DataError
from emdistill.tasks.words import AT_ENDS, MARKS

TRAIN = "Ann\tB-PER\nis\tO\n.\tO\n\nin\tO\nNew\tB-LOC\nYork\tI-LOC\n\nno\tO\none\tO\n"


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
    return str(path)


def test_a_conll_file_needs_no_kind(tmp_path: Path) -> None:
    data = read_task_data(
        write(tmp_path / "train.conll", TRAIN), dev=write(tmp_path / "dev.conll", "York\tI-LOC\nis\tO\n")
    )
    task = data.task
    assert (task.kind.name, task.metrics[0]) == ("tagging", "entity_f1")
    assert str(task.words).startswith(AT_ENDS)
    assert task.labels == ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")  # the parts that only other types are met with, too
    row = data.train[1]
    assert (row["text"], row["words"]) == ("in New York", [[0, 2], [3, 6], [7, 11]])
    assert [task.labels[tag] for tag in row["label"]] == ["O", "B-LOC", "I-LOC"]
    assert [file.rows for file in data.files] == [3, 1]
    assert any("dev.conll:1" in note for note in data.notes)


def test_text_with_entities_is_cut_at_marks(tmp_path: Path) -> None:
    rows = [{"text": "Ann, in Rome.", "entities": [[0, 3, "PER"], [8, 12, "LOC"]]}, {"text": "None!", "entities": []}]
    data = read_task_data(write(tmp_path / "rows.jsonl", rows * 4), kind="tagging")
    assert data.task.words == MARKS
    assert data.train.features["words"] == data.task.kind.columns["words"] == data.evaluation["dev"].features["words"]
    assert data.held_out


def test_parts_of_speech_are_scored_by_accuracy(tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "book"], "tags": ["DET", "NOUN"]}, {"tokens": ["go"], "tags": ["VERB"]}] * 3
    data = read_task_data(write(tmp_path / "rows.jsonl", rows), kind="tagging")
    assert data.task.metrics == ("accuracy", "macro_f1")


def test_a_tag_that_train_does_not_have_is_named_with_its_line(tmp_path: Path) -> None:
    dev = write(tmp_path / "dev.conll", "a\tO\n\nAnn\tB-PERS\n")
    with names(DataError, "dev.conll", 3, "B-PERS", "B-PER"):
        read_task_data(write(tmp_path / "train.conll", TRAIN), dev=dev)


def test_tags_that_are_all_the_same_are_refused_unless_they_are_only_scored(tmp_path: Path) -> None:
    data = write(tmp_path / "train.conll", "a\tO\n\nb\tO\n")
    with names(DataError, "train.conll", "O"):
        read_task_data(data)
    assert read_task_data(data, dev=data, evaluating=True).task.chance


def test_wnut17_is_read_from_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "wnut17train.conll", TRAIN)
    write(tmp_path / "emerging.dev.conll", TRAIN)
    data = read_task_data(str(tmp_path), task="wnut17")
    assert list(data.evaluation) == ["dev"]
    with pytest.raises(DataError):
        read_task_data(str(tmp_path / "elsewhere"), task="wnut17")


def test_tags_of_a_hub_dataset_may_all_be_the_same_where_they_are_only_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Dataset.from_dict({"tokens": [["a"], ["b", "c"]], "tags": [["O"], ["O", "O"]]})
    monkeypatch.setattr("datasets.load_dataset", lambda _name: {"train": rows, "validation": rows})
    with names(DataError, "owner/tags (train)", "O"):
        read_task_data("owner/tags", kind="tagging")
    assert len(read_task_data("owner/tags", kind="tagging", evaluating=True).evaluation["dev"]) == 2
