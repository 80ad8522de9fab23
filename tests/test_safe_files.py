"""Files that are written whole or not at all."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from emdistill.errors import DataError, OutputError
from emdistill.files import files_written_whole, folder_written_whole, storage_errors, write_whole, written_whole


def contents(folder: Path) -> dict[str, str]:
    """Every file below the folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill_file(part: Path) -> None:
    part.write_text("new")


def fill_folder(part: Path) -> None:
    (part / "new").write_text("new")


WAYS = [(written_whole, fill_file), (folder_written_whole, fill_folder)]
Way = Callable[[Path], AbstractContextManager[Path]]


@pytest.mark.parametrize(("way", "fill"), WAYS)
@pytest.mark.parametrize("stands", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_stood_there(
    tmp_path: Path, way: Way, fill: Callable[[Path], None], stands: bool, error: type[BaseException]
) -> None:
    place = tmp_path / "place"
    if stands and way is folder_written_whole:
        place.mkdir()
        (place / "old").write_text("old")
    elif stands:
        place.write_text("old")
    before = contents(tmp_path)

    def fail() -> None:
        with way(place) as part:
            fill(part)
            assert contents(tmp_path) != before
            raise error

    with pytest.raises(error):
        fail()
    assert contents(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == stands
    with way(place) as part:
        fill(part)
        assert before.items() <= contents(tmp_path).items()
    assert contents(tmp_path) == {"place" if way is written_whole else "place/new": "new"}


def test_what_cannot_be_put_in_place_vanishes(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    with pytest.raises(IsADirectoryError), written_whole(tmp_path / "place") as part:
        fill_file(part)
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_file_that_cannot_be_made_is_known_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), written_whole(tmp_path / "absent" / "file"):
        pytest.fail("nothing is to be computed for it")


def test_text_that_is_none_leaves_nothing(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "ü\n")
    assert (tmp_path / "a").read_bytes() == "ü\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a", "\ud83d")
    assert contents(tmp_path) == {"a": "ü\n"}


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept", encoding="utf-8")
    (tmp_path / "link").symlink_to("elsewhere")
    write_whole(tmp_path / "link", "new")
    assert contents(tmp_path) == {"elsewhere": "kept", "link": "new"}
    assert not (tmp_path / "link").is_symlink()


def test_a_link_to_a_folder_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_text("old")
    (tmp_path / "link").symlink_to("there")
    with folder_written_whole(tmp_path / "link") as part:
        fill_folder(part)
    assert not (tmp_path / "link").is_symlink()
    assert (contents(tmp_path / "link"), contents(tmp_path / "there")) == ({"new": "new"}, {"old": "old"})


@pytest.mark.parametrize("way", [folder_written_whole, files_written_whole])
def test_what_a_killed_process_left_half_written_goes_with_the_next_write(tmp_path: Path, way: Way) -> None:
    killed = f"""
import os
from pathlib import Path
from emdistill.files import {way.__name__}
with {way.__name__}(Path({str(tmp_path / "place")!r})) as part:
    (part / "half").write_text("half")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    assert any(tmp_path.rglob("half"))
    with way(tmp_path / "place") as other:  # of a process that lives
        fill_folder(other)
        with way(tmp_path / "place") as part:
            fill_folder(part)
            assert other.exists()
    assert contents(tmp_path) == {"place/new": "new"}
    assert not list(tmp_path.rglob(".*"))


def test_a_half_written_file_goes_too_but_not_that_of_another_machine(tmp_path: Path) -> None:
    killed = f"""
import os
from pathlib import Path
from emdistill.files import written_whole
with written_whole(Path({str(tmp_path / "place")!r})) as part:
    part.write_text("half")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    (half,) = tmp_path.iterdir()
    number = half.name.removesuffix(".part").rpartition("-")[2]
    elsewhere = tmp_path / f"place.00000000-{number}.part"
    elsewhere.write_text("half")
    write_whole(tmp_path / "place", "new")
    assert contents(tmp_path) == {"place": "new", elsewhere.name: "half"}


def test_a_part_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept", encoding="utf-8")
    with written_whole(tmp_path / "place") as part:
        name = part.name
    (tmp_path / name).symlink_to("elsewhere")
    write_whole(tmp_path / "place", "new")
    assert contents(tmp_path) == {"elsewhere": "kept", "place": "new"}


def test_only_what_the_disk_refuses_is_a_fault_of_storage(tmp_path: Path) -> None:
    with pytest.raises(DataError), storage_errors(tmp_path):
        raise DataError("it has no label", file="photos errors.csv")
    with pytest.raises(OutputError), storage_errors(tmp_path):
        raise RuntimeError("No space left on device (os error 28)")
