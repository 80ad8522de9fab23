"""How files are made safe: written whole or not at all, and by one process at a time."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from emdistill.errors import visible

LONGEST_NAME = 255  # bytes that file systems take


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """An empty file beside `path` to write into: it becomes `path` at the end, or vanishes where anything fails.

    It is `path`.PID.part, so that no two processes share it. Raises OSError at once where it cannot be made.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.touch()
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write `text` in UTF-8, whole or not at all."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def is_inside(name: str) -> bool:
    """Whether a path that a file names stays within the folder that it is seen from, and can be one at all."""
    is_short = len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NAME
    return is_short and not Path(name).is_absolute() and ".." not in Path(name).parts


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; False for a name that the system takes for none."""
    try:
        return path.exists()
    except OSError:
        return False


@contextmanager
def folder_written_whole(place: Path) -> Iterator[Path]:
    """The same for a folder: what stands at `place` is replaced at the end, or stays where anything fails."""
    place = place.resolve()  # what a link leads to is written, not the link
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    part, old = work / "new", work / "old"
    part.mkdir()
    try:
        yield part
        if place.exists():
            place.replace(old)
        part.replace(place)
    finally:
        if old.exists() and not place.exists():
            old.replace(place)
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def one_at_a_time(path: Path, writing: str) -> Iterator[None]:
    """Hold the lock `path`; a process that waits says that another run is writing `writing`.

    The lock of a run that was killed is free again.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(visible(f"another run is writing {writing}; waiting for it"), file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
