"""Files as bytes, plain or compressed: .gz, .xz, .bz2 and .zst are unpacked while they are read."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow

from emdistill.errors import DataError

Opener = Callable[[Any], Any]  # a binary file -> the same, unpacked

XZ_MEMORY = 2**27  # bytes

OPENERS: dict[str, Opener] = {
    "": lambda file: file,
    ".xz": lambda file: lzma.LZMAFile(_with_small_dictionary(file)),  # noqa: SIM115 (it is closed by `open_bytes`)
    ".gz": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    ".bz2": bz2.BZ2File,
    ".zst": lambda file: io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd")),
}


def _with_small_dictionary(file: Any) -> Any:
    """The same .xz file; raises LZMAError where unpacking needs more memory than that of `xz -9` does."""
    lzma.LZMADecompressor(memlimit=XZ_MEMORY).decompress(file.read(1024), max_length=1)
    file.seek(0)
    return file


def compression(path: Path) -> str:
    """The suffix that says how a file is compressed, or ''."""
    return path.suffix.lower() if path.suffix.lower() in OPENERS else ""


def plain_path(path: Path) -> Path:
    """reviews.csv for reviews.csv.gz: its suffix says what stands in the file."""
    return path.with_suffix("") if compression(path) else path


@contextmanager
def open_bytes(path: Path) -> Iterator[Any]:
    """A file as bytes, unpacked; raises DataError where what is read inside is damaged or cut short."""
    try:
        with path.open("rb") as raw, OPENERS[compression(path)](raw) as file:
            yield file
    except DAMAGES as error:
        raise unreadable(path, "to its end", error) from error


DAMAGES = (OSError, EOFError, lzma.LZMAError, zlib.error)


def unreadable(path: Path, where: str, error: Exception) -> DataError:
    """The error of a file that cannot be read: where, and why."""
    return DataError(f"it cannot be read {where} ({error}); if it is damaged or cut short, copy it again", file=path)
