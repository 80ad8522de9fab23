"""A file of raw text into paragraphs, streamed: one paragraph per line, blank lines between documents, UTF-8."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import wrap_file

from emdistill.console import Terminal, is_silent
from emdistill.data import compressed
from emdistill.data.compressed import DAMAGES, Opener, unreadable
from emdistill.data.rows import NO_TEXT, check_file, decoded
from emdistill.errors import DataError

OPENERS = {f".txt{suffix}": opener for suffix, opener in compressed.OPENERS.items()}
LONGEST_LINE = 2**24  # bytes; without a bound a file without line ends would fill the memory


class Paragraph(NamedTuple):
    """A paragraph, its line (from 1) and its document (from 0)."""

    line: int
    document: int
    text: str


def read_corpus(path: str | Path, *, description: str = "") -> Generator[Paragraph, None, None]:
    """The paragraphs of a .txt file, plain or compressed (.xz, .gz, .bz2, .zst), one by one, never all in memory.

    description   of the progress bar on stderr; '': no bar
    Control characters are left to the tokenizer, but a NUL is refused: it betrays UTF-16 or another binary format.
    Raises DataError, with file and line: no such file, of unknown type, empty, damaged or cut short, not UTF-8,
    a line of more than 16 MiB.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"this is a folder; name a text file in it ({', '.join(OPENERS)})", file=path)
    check_file(path)
    for suffix, opener in OPENERS.items():
        if path.name.lower().endswith(suffix):
            return _paragraphs(path, opener, description)
    raise DataError(f"raw text is read from these types of file: {', '.join(OPENERS)}", file=path)


def _paragraphs(path: Path, opener: Opener, description: str) -> Generator[Paragraph, None, None]:
    document, begins = -1, True
    for number, content in _lines(path, opener, description):
        if text := _text(content, path, number):
            document += begins
            yield Paragraph(number, document, text)
        begins = not text
    if document < 0:
        raise DataError("there is no text in it, only blank lines", file=path)


def _lines(path: Path, opener: Opener, description: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    bar: Any = {"description": description, "console": Terminal(stderr=True), "disable": not description or is_silent()}
    try:
        with (
            path.open("rb") as raw,
            wrap_file(raw, path.stat().st_size, transient=True, **bar) as watched,
            opener(watched) as file,
        ):
            while content := file.readline(LONGEST_LINE + 1):
                number += 1
                yield number, content
    except DAMAGES as error:
        raise unreadable(path, f"beyond line {number}" if number else "at all", error) from error


def _text(content: bytes, path: Path, line: int) -> str:
    if line == 1 and not content.endswith(b"\n") and b"\r" in content.rstrip():
        raise DataError("its lines end in CR alone; save it with the line ends LF or CRLF", file=path, line=line)
    if len(content) > LONGEST_LINE:
        raise DataError("this line has more than 16 MiB; write one paragraph per line", file=path, line=line)
    text = decoded(content, path, line)
    if "\0" in text:
        raise DataError(NO_TEXT, file=path, line=line)
    return text.strip()
