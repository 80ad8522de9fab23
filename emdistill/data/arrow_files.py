"""Rows on disk, so that memory does not grow with them: kept ones, with an index that vouches for them, and others.

Both are Arrow streams that are written batch by batch and memory-mapped.
"""

import atexit
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from emdistill.errors import DataError, tell
from emdistill.files import one_at_a_time, sha256, write_whole, written_whole

IN_MEMORY = 16 * 2**20
ROWS_AT_ONCE = 4096


def keep_rows(
    file: Path,
    schema: pa.Schema,
    batches: Generator[pa.RecordBatch, None, None],
    counts: Mapping[str, int],
    what: str,
) -> dict[str, int]:
    """Write the batches into `file`, if they are not kept there already; the counts of them all.

    counts   may grow while batches are drawn
    what     they are, in messages
    Of two runs at once one writes and the other waits. A crash leaves nothing that is taken for the rows.
    Raises DataError where the folder cannot be written to.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(file.with_suffix(".lock"), what), closing(batches):
            kept = _trusted_counts(file)
            if kept is None:
                _write_rows(file, schema, batches, counts)
                kept = dict(counts)
            return kept
    except OSError as error:
        raise DataError(f"{what} cannot be kept here: {error}", file=file.parent) from error


def _write_rows(file: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], counts: Mapping[str, int]) -> None:
    for unfinished in file.parent.glob(f"{file.name}.*.part"):  # of a run that was killed
        unfinished.unlink()
    with written_whole(file) as part, part.open("wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    index = {"bytes": file.stat().st_size, "sha256": sha256(file), "counts": dict(counts)}
    write_whole(file.with_suffix(".json"), json.dumps(index) + "\n")


def _trusted_counts(file: Path) -> dict[str, int] | None:
    """The counts of the rows that were written, or None where they are not whole."""
    try:
        index = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        counts: dict[str, int] = index["counts"]
        if index["bytes"] != file.stat().st_size or index["sha256"] != sha256(file):
            tell(f"{file} is damaged and made anew: its size or checksum differs")
            return None
        return counts
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def chunk_by_chunk(examples: Dataset, made_of: Callable[[Dataset], Dataset]) -> Dataset:
    """What is made of the examples, so many at once that memory does not grow with them."""
    starts = range(0, max(1, len(examples)), ROWS_AT_ONCE)
    chunks = (examples.select(range(start, min(start + ROWS_AT_ONCE, len(examples)))) for start in starts)
    return spooled(made_of(chunk) for chunk in chunks)


def spooled(parts: Iterable[Dataset]) -> Dataset:
    """The rows of all parts, of the columns and types of the first; at least one part.

    Up to IN_MEMORY bytes they stay in memory; more go to a temporary file, which is removed when Python ends.
    """
    parts = iter(parts)
    first = next(parts)
    schema = first.features.arrow_schema
    tables = (part.with_format("arrow")[:].cast(schema) for part in itertools.chain([first], parts))
    held, size = [], 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if size > IN_MEMORY:
            break
    else:
        return Dataset(pa.concat_tables(held))
    handle, name = tempfile.mkstemp(prefix="emdistill-", suffix=".arrow")
    os.close(handle)
    atexit.register(Path(name).unlink, missing_ok=True)
    with pa.OSFile(name, "wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        for table in itertools.chain(held, tables):
            writer.write_table(table)
    return Dataset.from_file(name)
