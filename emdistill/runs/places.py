"""Where a verb may write: what cannot be written, or would be lost, is refused before any work."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from emdistill.errors import BusyError, ConfigError, OutputError
from emdistill.files import matching

LOCK = ".lock"


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to, or not be made."""
    if folder.is_symlink() and not folder.exists():
        raise OutputError(f"{folder} is a link to {folder.readlink()}, which is not there; choose another --output")
    nearest_folder = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest_folder.is_dir():
        raise OutputError(f"{nearest_folder} is a file; --output names a folder")
    if not os.access(nearest_folder, os.W_OK | os.X_OK):
        raise OutputError(f"{nearest_folder} may not be written to; choose another --output")


def check_file(place: Path, suffixes: Collection[str], *, overwrite: bool, reads: Iterable[str | None] = ()) -> None:
    """Refuse a file of another kind, one that exists or is read by the verb, and a folder that takes none."""
    if place.suffix not in suffixes:
        raise ConfigError(f"--output {place}: name a file that ends in {', '.join(suffixes)}")
    if place.is_dir():
        raise OutputError(f"--output {place} is a folder; name a file")
    if any(Path(name).resolve() == place.resolve() for name in _each(reads)):
        raise OutputError(f"{place} is read by this command, which would replace it; choose another --output")
    if place.exists() and not overwrite:
        raise OutputError(f"{place} exists already; --overwrite replaces it")
    folder = place.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"--output {place}: there is no folder {place.parent}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"--output {place}: {place.parent} may not be written to; choose another folder")


def check_folder(folder: Path, mark: str, content: str) -> None:
    """Refuse a file, a folder that cannot be written, and one that holds something without `mark`: no `content`."""
    check_writable(folder)
    names = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
    if names - {LOCK} and mark not in names:
        raise OutputError(f"{folder} is not empty and holds no {content}; choose another --output")


def _each(reads: Iterable[str | None]) -> Iterator[str]:
    """What is read, by name; of a pattern the files that it names."""
    return (file for name in filter(None, reads) for file in matching(name) or [name])


def check_not_read(folder: Path, own: Iterable[str], reads: Iterable[str | None]) -> None:
    """Refuse to read the folder itself, or what lies in its files and folders of these names, which are replaced."""
    places = [folder.resolve() / name for name in own]
    for name in _each(reads):
        place = Path(name).resolve()
        if place == folder.resolve() or any(place.is_relative_to(file) for file in places):
            raise OutputError(f"{name} is read by this command, which would replace it; choose another --output")


def check_replaceable(
    folder: Path, own: Collection[str], mark: str, content: str, *, overwrite: bool, reads: Iterable[str] = ()
) -> None:
    """Refuse a folder that cannot be replaced whole: it is no `content`, which has `mark` and only files of `own`."""
    if Path.cwd().is_relative_to(folder.resolve()):
        raise OutputError(f"--output {folder} is the folder that this command runs in; name one inside it")
    check_writable(folder)
    check_writable(folder.absolute().parent)  # where the folder is put in its place
    for name in _each(reads):
        if Path(name).resolve().is_relative_to(folder.resolve()):
            raise OutputError(f"{name} is read by this command, which would replace it; choose another --output")
    names = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
    if foreign := sorted(names - {*own}):
        raise OutputError(f"{folder} holds {foreign[0]!r}, which is no part of {content}; choose another --output")
    if names and mark not in names:
        raise OutputError(f"{folder} is not empty and is not {content}: it lacks {mark}; choose another --output")
    if names and not overwrite:
        raise OutputError(f"{folder} already holds {content}; --overwrite replaces it, or choose another --output")


@contextmanager
def one_owner(folder: Path, content: str) -> Iterator[None]:
    """Hold the lock of a folder, which is made; raises BusyError where another process is at its `content`."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"another process is at the {content} in {folder}; wait for it, or choose another --output"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()  # before it is free: whoever takes it next makes it anew
        lock.release()
