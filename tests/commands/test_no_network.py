"""No verb connects, listens or looks a name up, unless a hub id is named. Watched by Python's audit events."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emdistill.cli import main

WATCHED = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")
_events: list[tuple[str, Any]] | None = None  # None while nobody watches; a hook cannot be taken away again


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is not None and event in WATCHED:
        address = arguments[-1] if event.startswith("socket.get") else arguments[1]
        if not isinstance(address, str | bytes) or event.startswith("socket.get"):  # a name alone is a local pipe's
            _events.append((event, arguments[:2]))


sys.addaudithook(_watch)


@pytest.fixture
def events() -> Iterator[list[tuple[str, Any]]]:
    global _events
    _events = []
    yield _events
    _events = None


@pytest.mark.usefixtures("quick_export")
def test_nothing_is_sent_by_any_verb(place: Any, tmp_path: Path, events: list[tuple[str, Any]]) -> None:
    run, data = tmp_path / "run", f"{place.folder}/reviews.csv"
    student = f"{run}/student"
    verbs = [
        place.distill("--output", str(run), "--teacher_cache", "logits", "--baselines", "tfidf"),
        ["evaluate", "--model", student, "--data", data, *place.reviews],
        ["predict", "--model", student, "--input", f"{place.folder}/new.csv", "--output", f"{tmp_path}/out.csv"],
        ["export", "--int8", str(run), "--max-size-mb", "1", "--threads", "1"],
        ["predict", "--model", f"{run}/onnx", "--input", f"{place.folder}/new.csv", "--output", f"{tmp_path}/o.csv"],
        ["report", str(run)],
    ]
    for words in verbs:
        assert main(words) == 0, words
    assert not events


def test_the_watch_sees_what_is_tried(events: list[tuple[str, Any]]) -> None:
    with socket.socket() as one, pytest.raises(OSError, match="refused"):
        one.connect(("127.0.0.1", 1))
    assert [event for event, _ in events] == ["socket.connect"]
