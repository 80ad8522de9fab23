"""Rows that are made once and kept on disk: an Arrow stream, and an index beside it that vouches for it."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from emdistill.files import sha256, write_whole, written_whole


def write_rows(file: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], counts: Mapping[str, int]) -> None:
    """Write the batches one by one and, last, `counts`, which may grow while they are drawn, into the index."""
    for unfinished in file.parent.glob(f"{file.name}.*.part"):  # of a run that was killed
        unfinished.unlink()
    with written_whole(file) as part, part.open("wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    index = {"bytes": file.stat().st_size, "sha256": sha256(file), "counts": dict(counts)}
    write_whole(file.with_suffix(".json"), json.dumps(index) + "\n")


def trusted_counts(file: Path) -> dict[str, int] | None:
    """The counts of the rows that were written, or None where they are not whole."""
    try:
        index = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        counts: dict[str, int] = index["counts"]
        if index["bytes"] != file.stat().st_size or index["sha256"] != sha256(file):
            print(f"{file} is damaged and made anew: its size or checksum differs", file=sys.stderr)
            return None
        return counts
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
