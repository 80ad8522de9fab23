"""The hub is asked once whether it is there; where it is not, nothing waits for it."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from messages import names

from emdistill.data.data_sets import load_splits
from emdistill.errors import DataError, ModelError
from emdistill.hub import asked_once, can_be_asked
from emdistill.models import load_classifier


class Session:
    """Stands for the hub: it answers, or raises what it is given."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.asked = 0

    def head(self, *_: object, **__: object) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error


def stand_in(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> Session:
    session = Session(error)
    monkeypatch.setattr("emdistill.hub.get_session", lambda: session)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return session


@pytest.mark.parametrize("error", [None, OSError("no such name"), TimeoutError()])
def test_a_hub_that_does_not_answer_leaves_the_cache_alone(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    session = stand_in(monkeypatch, error)
    assert can_be_asked() is (error is None)
    with asked_once():
        assert constants.HF_HUB_OFFLINE is (error is not None)
    assert constants.HF_HUB_OFFLINE is False
    assert session.asked == 2


def test_a_mistyped_name_is_refused_at_once_with_what_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a network it took 25 seconds; a real request would fail here, for tests have none."""
    for name in ("teacher", "reviews", "bert-base-uncased"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    session = stand_in(monkeypatch, OSError("no such name"))
    with names(ModelError, "teachr", "'teacher'"):
        load_classifier("teachr")
    with names(ModelError, "bert-bse-uncased", "'bert-base-uncased'"):
        load_classifier("bert-bse-uncased")
    with names(ModelError, "./teachr", "'teacher'"):
        load_classifier("./teachr")
    with names(DataError, "reveiws", "'reviews'"):
        load_splits("reveiws")
    assert session.asked == 3


def test_a_hub_that_answers_is_asked_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, None)
    options = {}

    def download(source: str, **given: object) -> None:
        options.update(given)
        raise OSError(f"no {source}")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", download)
    with names(ModelError, "someone/model"):
        load_classifier("someone/model")
    assert options["local_files_only"] is False
