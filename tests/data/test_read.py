from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from messages import names

from emdistill.data.read import hold_out, read_task_data
from emdistill.errors import ConfigError, DataError
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task


def classes(counts: list[int], seed: int = 0) -> tuple[Dataset, Task]:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    task = Task("t", KINDS["classification"], tuple("abcdefghijklmnopqrstuvwxyz"[: len(counts)]), ("accuracy",))
    return Dataset.from_dict({"text": [f"text {i}" for i in range(len(labels))], "label": labels.tolist()}), task


def sizes(dataset: Dataset, task: Task) -> list[int]:
    return np.bincount(dataset["label"][:], minlength=task.outputs).tolist()


@pytest.mark.parametrize(
    ("counts", "share", "at_most", "expected"),
    [
        ([500, 300, 200], 0.1, 2_000, [50, 30, 20]),
        ([500, 300, 200], 0.1, 10, [5, 3, 2]),
        ([97, 2, 1], 0.1, 2_000, [9, 1, 0]),
        ([995, 5], 0.01, 2_000, [9, 1]),
        ([2, 2], 0.1, 2_000, [1, 1]),
        ([2, 2, 2], 0.9, 2_000, [1, 1, 1]),
        ([50, 2, 2, 2], 0.1, 2, [1, 1, 0, 0]),
        ([0, 20, 20], 0.1, 2_000, [0, 2, 2]),
    ],
)
def test_held_out_classes_keep_their_shares(counts: list[int], share: float, at_most: int, expected: list[int]) -> None:
    dataset, task = classes(counts)
    rest, held_out = hold_out(dataset, task, share, 42, at_most)
    found = sizes(held_out, task)
    assert sum(found) == sum(expected)
    assert sorted(found) == sorted(expected)
    assert [a + b for a, b in zip(sizes(rest, task), found, strict=True)] == counts
    assert sorted(rest["text"][:] + held_out["text"][:]) == sorted(dataset["text"][:])


def test_properties_of_the_cut_hold_for_random_class_counts() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        counts = rng.integers(2, 60, rng.integers(2, 9)).tolist()
        at_most = int(rng.integers(len(counts), 40))
        dataset, task = classes(counts, int(rng.integers(1_000)))
        rest, held_out = hold_out(dataset, task, 0.1, 1, at_most)
        assert len(held_out) <= at_most
        assert min(sizes(held_out, task)) >= 1
        assert min(sizes(rest, task)) >= 1
        exact = np.array(counts) * min(round(0.1 * sum(counts)), at_most) / sum(counts)
        assert (np.array(sizes(held_out, task)) <= np.maximum(1, np.ceil(exact))).all()


def test_the_seed_decides_and_the_order_stays() -> None:
    dataset, task = classes([60, 40])
    scores = Task("s", KINDS["regression"], (), ("pearson",))
    for kind in (task, scores):
        rest, held_out = hold_out(dataset, kind, 0.2, 7, 2_000)
        again = hold_out(dataset, kind, 0.2, 7, 2_000)
        other = hold_out(dataset, kind, 0.2, 8, 2_000)
        assert (len(rest), len(held_out)) == (80, 20)
        assert (rest.to_dict(), held_out.to_dict()) == (again[0].to_dict(), again[1].to_dict())
        assert held_out["text"][:] != other[1]["text"][:]
        for part in (rest, held_out):
            places = [int(text.split()[1]) for text in part["text"]]
            assert places == sorted(places)


@pytest.mark.parametrize("questions", [5, 40])
def test_questions_on_one_text_stay_together(questions: int) -> None:
    """What is learned of a text would flatter the answers to its other questions; of one text alone rows are drawn."""
    kind = KINDS["span-answers"]
    task = Task("q", kind, kind.label_names([]), ("f1",))
    texts = [f"text {row // questions}" for row in range(40)]
    rows = task.rows_of_text({"text": [f"q {row}?" for row in range(40)], "text_pair": texts})
    dataset = rows.add_column("label", [[[0, 4]]] * 40, feature=kind.label_type)
    rest, held_out = hold_out(dataset, task, 0.3, 1, 2_000)
    assert len(held_out) == (10 if questions == 5 else 12)
    assert not {*rest["text_pair"]} & {*held_out["text_pair"]} or questions == 40
    assert {*rest["text"]} | {*held_out["text"]} == {*dataset["text"]}


def test_what_cannot_be_cut_is_refused() -> None:
    dataset, task = classes([1, 1])
    with names(DataError, "'t'"):
        hold_out(dataset, task, 0.5, 0, 10)
    with names(DataError, "'t'", 1):
        hold_out(dataset.select([0]), task, 0.5, 0, 10)
    with names(ConfigError, 1.0):
        hold_out(dataset, task, 1.0, 0, 10)


def test_without_a_development_set_a_tenth_is_held_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{'yes' if i % 4 else 'no'}\n" for i in range(200)))
    found = read_task_data(str(path))
    assert (len(found.train), len(found.evaluation["dev"])) == (180, 20)
    assert sizes(found.evaluation["dev"], found.task) == [5, 15]
    assert found.held_out is not None
    assert "20 of the 200 training examples" in found.held_out
    assert "stratified by label, seed 42" in found.held_out
    assert [file.rows for file in found.files] == [200]
    assert not set(found.train["text"]) & set(found.evaluation["dev"]["text"])
    reseeded = read_task_data(str(path), seed=1)
    assert reseeded.evaluation["dev"]["text"][:] != found.evaluation["dev"]["text"][:]


def test_a_glue_folder_without_dev_is_cut_too(tmp_path: Path) -> None:
    scores = "".join(f"{i}\ta{i}\tb{i}\t{i / 10}\n" for i in range(50))
    (tmp_path / "train.tsv").write_text("index\tsentence1\tsentence2\tscore\n" + scores)
    found = read_task_data(str(tmp_path), task="stsb")
    assert (len(found.train), len(found.evaluation["dev"])) == (45, 5)
    assert found.held_out is not None
    assert "at random" in found.held_out


def test_options_that_contradict_are_refused(tmp_path: Path) -> None:
    with names(ConfigError, "'mprc'", "'mrpc'"):
        read_task_data(str(tmp_path), task="mprc")
    with names(ConfigError, "--kind regression", "mrpc", "classification"):
        read_task_data(str(tmp_path), task="mrpc", kind="regression")
    with names(DataError, tmp_path, ".csv", "--dev"):
        read_task_data(str(tmp_path))


def test_a_hub_dataset_is_read_with_its_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    features = Features({"body": Value("string"), "label": ClassLabel(names=["world", "arts"])})
    train = Dataset.from_dict({"body": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    splits = {"train": train, "validation": train.select([0, 1]), "test": train}
    monkeypatch.setattr("datasets.load_dataset", lambda _name: splits)
    found = read_task_data("owner/news", text="body")
    assert (found.task.name, found.task.labels) == ("news", ("world", "arts"))
    assert found.train["label"][:] == [1, 0, 1]
    assert found.evaluation["dev"]["text"][:] == ["a", "b"]
    with names(DataError, "owner/news (train)", "'text'", "body, label"):
        read_task_data("owner/news")
    splits["train"] = Dataset.from_dict({"body": ["a", "b"], "label": [-1, 0]}, features=features)
    with names(DataError, "owner/news (train):1", "'label'"):
        read_task_data("owner/news", text="body")
    several = Features({"body": Value("string"), "label": List(ClassLabel(names=["world", "arts"]))})
    splits["train"] = Dataset.from_dict({"body": [*"abcde"], "label": [[0], [-1], None, [1, 0], []]}, features=several)
    with names(DataError, "owner/news (train):2", "owner/news (train):3") as caught:
        read_task_data("owner/news", text="body")
    assert "(train):5" not in str(caught.value)
    del splits["train"]
    with names(DataError, "owner/news", "'train'", "validation, test"):
        read_task_data("owner/news", text="body")


def test_a_hub_dataset_that_cannot_be_had_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> None:
        raise ConnectionError("no way out")

    monkeypatch.setattr("datasets.load_dataset", fail)
    with names(DataError, "owner/news", "no way out"):
        read_task_data("owner/news")
    with names(DataError, "news.csv"):
        read_task_data("news.csv")


def test_a_kind_that_is_none_is_refused(tmp_path: Path) -> None:
    with names(ConfigError, "--kind regresion", "'regression'"):
        read_task_data(str(tmp_path / "reviews.csv"), kind="regresion")


def test_a_development_set_of_one_class_is_refused_with_the_mend(tmp_path: Path) -> None:
    rows = "text,label\n" + "".join(f"text {row},{'ab'[row % 2]}\n" for row in range(20))
    (tmp_path / "train.csv").write_text(rows)
    (tmp_path / "dev.csv").write_text("text,label\nsome text,a\nother text,a\n")
    with names(DataError, "dev.csv", "a", "--dev", "emdistill evaluate"):
        read_task_data(str(tmp_path / "train.csv"), dev=str(tmp_path / "dev.csv"))
    (tmp_path / "train.csv").write_text(rows.replace(",b\n", ",a\n"))
    with pytest.raises(DataError) as caught:
        read_task_data(str(tmp_path / "train.csv"))
    assert "--dev" not in str(caught.value)
