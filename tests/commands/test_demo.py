"""The demo as a whole, with a random encoder and few messages: what it prints last, and that it is not done twice."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from messages import unnamed

import emdistill.commands.demo as module
from emdistill.cli import main
from emdistill.data.messages import MESSAGES
from emdistill.models import fingerprint, load_classifier
from emdistill.runs import learn
from emdistill.runs.baseline_record import TITLES, read_baselines
from emdistill.runs.record import read_run
from emdistill.ship import bench
from emdistill.show.verdict import verdict
from emdistill.tasks.task import TaskData

FAST = {"learning_rate": 5e-3, "per_device_train_batch_size": 16, "flow_steps": 0, "disable_tqdm": True}
WORDS = {"negative": "bad", "neutral": "a book", "positive": "good"}


def messages(count: int) -> list[tuple[str, str]]:
    """(text, label); the label is told by one word."""
    things = ("it", "the movie", "the book", "the movie of it")
    return [
        (f"{things[row // 3 % 4]} was {'very ' * (row // 12 % 3)}{WORDS[label]}", label)
        for row in range(count)
        for label in [MESSAGES.labels[row % 3]]
    ]


def rows(count: int) -> Dataset:
    texts, labels = zip(*messages(count), strict=True)
    return Dataset.from_dict({"text": texts, "label": list(map(MESSAGES.labels.index, labels))})


@pytest.fixture
def small(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder of the place, few messages, fast learning, and little timing."""

    def fast(load: Any, epochs: dict[str, Any], training: dict[str, Any], **options: Any) -> Any:
        return load(training={**epochs, **training, **FAST}, **options)

    data = TaskData(MESSAGES, rows(96), {"dev": rows(36)})
    text = [(f"{text}, not {number}", label) for number, (text, label) in enumerate(messages(40))]
    monkeypatch.setattr(module, "find_encoder", lambda: place.folder / "encoder")
    monkeypatch.setattr(module, "read_messages", lambda more_dev: data)
    monkeypatch.setattr(module, "messages_splits", lambda more_dev: {"text": text})
    finetune = partial(fast, module.load_finetune_config, {"num_train_epochs": 6})
    monkeypatch.setattr(module, "load_finetune_config", finetune)
    monkeypatch.setattr(module, "load_config", partial(fast, module.load_config, {}))
    monkeypatch.setattr(bench, "SECONDS", 0.0)


def test_the_demo_replaces_no_file_of_ones_own(small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "text.jsonl"
    own.write_text('{"text": "mine"}\n')
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert not unnamed(capsys.readouterr().err, own, "--output")
    assert "mine" in own.read_text()
    assert main(["demo", "--output", str(own)]) == 2
    assert not unnamed(capsys.readouterr().err, own)


def test_the_demo_ends_with_a_table_and_a_sentence_and_is_not_done_twice(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["demo", "--output", str(tmp_path / "demo"), "--unlabelled_rows=30"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    run = tmp_path / "demo" / "student"
    record = read_baselines(run)
    assert record is not None
    assert list(record.baselines) == ["tfidf", "labels", "int8"]
    table = printed[printed.rindex("3 of 3") :]
    assert not unnamed(table, "teacher", *(TITLES[name] for name in record.baselines), "report.html", "finetune")
    assert printed.splitlines()[-1] == verdict(record)
    assert read_run(run).unlabelled["kept"] == 30  # type: ignore[index]
    assert (run / "report.html").is_file()

    before = fingerprint(load_classifier(run / "student"))
    with monkeypatch.context() as patch:
        patch.setattr(learn, "run_stages", None)  # a training would fail
        assert main(words) == 0
    again = capsys.readouterr().out
    assert again.splitlines()[-1] == printed.splitlines()[-1]
    assert fingerprint(load_classifier(run / "student")) == before
