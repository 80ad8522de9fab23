"""Folders that the package `datasets` has saved, or that were downloaded from the hub, are data like its names."""

import shutil
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from messages import names

from emdistill.data.data_sets import is_data_set, is_saved, load_splits
from emdistill.data.read import read_task_data
from emdistill.errors import DataError

FEATURES = Features({"body": Value("string"), "label": ClassLabel(names=["world", "arts"])})
TRAIN = Dataset.from_dict({"body": [f"text {row}" for row in range(8)], "label": [0, 1] * 4}, features=FEATURES)
DEV = TRAIN.select([0, 1])


def save(folder: Path) -> None:
    DatasetDict(train=TRAIN.with_format("numpy"), validation=DEV).save_to_disk(folder)


def download(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    for part, rows in {
        "train-00000-of-00002": TRAIN.select(range(5)),
        "train-00001-of-00002": TRAIN.select([5, 6, 7]),
    }.items():
        rows.to_parquet(folder / "data" / f"{part}.parquet")
    DEV.to_parquet(folder / "data" / "validation-00000-of-00001.parquet")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("kind", [None, "tagging", "span-answers"])
@pytest.mark.parametrize("file", ["dataset_info.json", "dataset_dict.json"])
def test_a_folder_that_is_not_whole_is_named(tmp_path: Path, file: str, kind: str | None) -> None:
    (tmp_path / file).write_text("{}")
    with names(DataError, tmp_path):
        read_task_data(str(tmp_path), kind=kind)


@pytest.mark.parametrize("make", [save, download])
def test_a_folder_is_read_with_its_class_names(tmp_path: Path, make) -> None:
    make(tmp_path / "news")
    found = read_task_data(f"{tmp_path}/news/", text="body")
    assert (found.task.name, found.task.labels) == ("news", ("world", "arts"))
    assert found.train["text"][:] == TRAIN["body"][:]
    assert found.train["label"][:] == [0, 1] * 4
    assert found.evaluation["dev"]["text"][:] == ["text 0", "text 1"]
    again = read_task_data(str(tmp_path / "news"), text="body")
    assert [file.rows for file in found.files] == [8, 2]
    assert len({file.sha256 for file in (*found.files, *again.files)}) == 2


def test_one_split_alone_is_train(tmp_path: Path) -> None:
    TRAIN.save_to_disk(tmp_path / "news")
    assert load_splits(str(tmp_path / "news"))["train"]["body"][:] == TRAIN["body"][:]


def test_words_with_tags_are_read_from_a_folder(tmp_path: Path) -> None:
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "B-place"]))})
    rows = {"tokens": [["in", "Rome"], ["go", "home"]] * 5, "tags": [[0, 1], [0, 0]] * 5}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "places")
    found = read_task_data(str(tmp_path / "places"), text="tokens", label="tags", kind="tagging")
    assert found.task.labels == ("O", "B-place", "I-place")
    assert len(found.files) == 1


def test_classes_whose_names_are_no_texts_have_none(tmp_path: Path) -> None:
    TRAIN.save_to_disk(tmp_path / "news")
    described = tmp_path / "news" / "dataset_info.json"
    described.write_text(described.read_text().replace('"world"', '["world"]'))
    assert read_task_data(str(tmp_path / "news"), text="body").task.labels == ("0", "1")


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    TRAIN.save_to_disk(tmp_path / "news")
    (arrow,) = (tmp_path / "news").glob("*.arrow")
    whole = arrow.read_bytes()
    for damaged in (whole[: len(whole) // 2], b""):
        arrow.unlink()  # it may be mapped into memory
        arrow.write_bytes(damaged)
        with names(DataError, tmp_path / "news", "datasets"):
            load_splits(str(tmp_path / "news"))
    (tmp_path / "news" / "state.json").write_text('{"_data_files": 3}')
    with names(DataError, tmp_path / "news", "datasets"):
        load_splits(str(tmp_path / "news"))


def test_what_is_no_data_set(tmp_path: Path) -> None:
    save(tmp_path / "news")
    assert is_data_set("owner/news")
    assert is_data_set(str(tmp_path / "news"))
    shutil.rmtree(tmp_path / "news" / "train")
    (tmp_path / "glue").mkdir()
    (tmp_path / "glue" / "train.tsv").write_text("sentence\tlabel\n")
    for none in (tmp_path / "glue", tmp_path / "absent.csv", tmp_path / "glue" / "train.tsv"):
        assert not is_data_set(str(none))
        assert not is_saved(none)
