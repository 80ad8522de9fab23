"""Rows that pass through memory in parts are the rows, in memory or on disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import Dataset

from emdistill.data import arrow_files


def parts() -> Iterator[Dataset]:
    for number in range(3):
        columns = {"text": list("abc"), "input_ids": [[1, number], [3], []], "label": [0.5, number, 2]}
        yield Dataset.from_dict(columns).select([2, 0])


@pytest.mark.parametrize("limit", [2**20, 1], ids=["memory", "disk"])
def test_spooled_rows_are_those_of_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], limit: int
) -> None:
    monkeypatch.setattr(arrow_files, "IN_MEMORY", limit)
    monkeypatch.setattr(arrow_files.tempfile, "tempdir", str(tmp_path))
    rows = arrow_files.spooled(parts())
    assert rows.to_list() == [row for part in parts() for row in part.to_list()]
    assert rows.features == next(parts()).features
    assert len(list(tmp_path.iterdir())) == (limit == 1)
    assert capfd.readouterr().err == ""  # no bar of somebody else's
