"""benchmarks/fuzz.py in short: its valid inputs are accepted, and no malformed one ends in another library's error."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import fuzz
from fuzz_readers import READERS

INPUTS = 6
MEGABYTES = 512


@pytest.fixture(autouse=True)
def _other_libraries_warn(recwarn: pytest.WarningsRecorder) -> None:
    """What they say of a malformed input is not what is tested."""


@pytest.mark.parametrize("reader", READERS)
def test_malformed_inputs_are_refused_by_an_error_of_this_project(reader: str, tmp_path: Path) -> None:
    for number in range(-1, INPUTS):
        folder = tmp_path / str(number)
        outcome = fuzz.outcome(reader, fuzz.broken_input(reader, number, seed=0), folder, MEGABYTES)
        assert outcome in (("accepted",) if number < 0 else ("accepted", "refused")), f"{folder}: {outcome}"
