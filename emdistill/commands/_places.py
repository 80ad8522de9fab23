"""Where a verb may write: what cannot be written, or would be lost, is refused before any work."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from emdistill.errors import ConfigError, OutputError
from emdistill.runs.open_run import check_writable


def check_file(place: Path, suffixes: Collection[str], *, overwrite: bool, reads: Iterable[str | None] = ()) -> None:
    """Refuse a file of another kind, one that exists or is read by the verb, and a folder that takes none."""
    if place.suffix not in suffixes:
        raise ConfigError(f"--output {place}: name a file that ends in {', '.join(suffixes)}")
    if place.is_dir():
        raise OutputError(f"--output {place} is a folder; name a file")
    if any(name is not None and Path(name).resolve() == place.resolve() for name in reads):
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
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).exists():
        raise OutputError(f"{folder} is not empty and holds no {content}; choose another --output")
