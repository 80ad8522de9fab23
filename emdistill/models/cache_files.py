"""The teacher cache on disk: one raw file per kind of states and layer, and an index that vouches for them.

    FOLDER/index.json         key of the teacher and its examples; kind, layer, type, shape, bytes, SHA-256 of files
    FOLDER/logits.bin         float32 [answers, C]; an example has one answer, or as many as its kind of task asks for
    FOLDER/embeddings.bin     float16 [tokens, d]
    FOLDER/hidden-3.bin       float16 [tokens, d], after layer 3
    FOLDER/attention-3.bin    float16, h·l·l scores for an example of l tokens
    FOLDER/queries-3.bin      float16 [tokens, d], and likewise keys-3.bin and values-3.bin

Examples stand without padding in the order of writing, longest first, and an example is one read per file. Files are
written as such, where a full disk is an error (through a memory map it would end the process); cache_shards.py says
how, and what stands in the folder meanwhile.
"""

import json
import math
import shutil
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from emdistill.errors import CacheError, tell
from emdistill.files import sha256, write_whole
from emdistill.models.capture import OF_ATTENTION, OF_LAYERS, check_states, chosen_layers, field_of
from emdistill.states import EncoderShape, EncoderStates

FORMAT = 1
GIB = 2**30
EVERY = slice(None)


class Part(NamedTuple):
    """The content of one file: logits, embeddings, or one kind of states of one layer."""

    kind: str
    layer: int | None = None

    @property
    def file(self) -> str:
        """The file's name in the cache folder."""
        return f"{self.kind}.bin" if self.layer is None else f"{self.kind}-{self.layer}.bin"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Single precision for logits, half for states."""
        return np.dtype(np.float32 if self.kind == "logits" else np.float16)

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind} of layer {self.layer}"


def parts_of(shape: EncoderShape, needs: Collection[str], layers: Collection[int] | None) -> list[Part]:
    """The files that hold logits and the states `needs` of `layers` (None: all).

    Raises CaptureError for a state that there is not, LayerCountError for a layer that the teacher lacks.
    """
    check_states(needs)
    chosen = chosen_layers(layers, shape.layers)
    flat = [Part("logits")] + [Part("embeddings")] * ("embeddings" in needs)
    attending = {*shape.attending_layers}
    return flat + [
        Part(kind, layer)
        for kind in OF_LAYERS
        if kind in needs
        for layer in chosen
        if kind not in OF_ATTENTION or layer in attending
    ]


class Layout:
    """The place of each example's values in the files: a function of the sizes and the examples' lengths.

    answers   of each example; None: one
    """

    def __init__(
        self,
        shape: EncoderShape,
        outputs: int,
        lengths: Sequence[int] | np.ndarray,
        answers: Sequence[int] | None = None,
    ) -> None:
        self.shape = shape
        self.outputs = outputs
        self.lengths = np.asarray(lengths, dtype=np.int32)
        one = np.broadcast_to(np.int32(1), self.lengths.shape)  # takes no memory
        self.answers = one if answers is None else np.asarray(answers, dtype=np.int32)
        self.order = np.argsort(-self.lengths, kind="stable").astype(np.int32)
        self._starts: dict[str, np.ndarray] = {}

    def state_shape(self, kind: str, length: int) -> tuple[int, ...]:
        """The shape of one example's state over `length` positions."""
        return (self.shape.heads, length, length) if kind == "attention" else (length, self.shape.width)

    def example_shape(self, kind: str, row: int) -> tuple[int, ...]:
        """The shape of what the files hold of one example."""
        if kind == "logits":
            return (int(self.answers[row]), self.outputs)
        return self.state_shape(kind, int(self.lengths[row]))

    def values(self, kind: str, rows: slice | np.ndarray = EVERY) -> np.ndarray:
        """Numbers per example, [rows]."""
        counts = (self.answers if kind == "logits" else self.lengths)[rows].astype(np.int64)
        if kind == "logits":
            return self.outputs * counts
        return self.shape.heads * counts**2 if kind == "attention" else self.shape.width * counts

    def starts(self, kind: str) -> np.ndarray:
        """Where each example's numbers begin in the files of a kind, [rows]."""
        if kind not in self._starts:
            in_order = self.values(kind, self.order)
            self._starts[kind] = np.empty_like(in_order)
            self._starts[kind][self.order] = np.cumsum(in_order) - in_order
        return self._starts[kind]

    def file_shape(self, kind: str) -> tuple[int, ...]:
        """Rows × outputs, tokens × width, or the number of scores."""
        if kind == "logits":
            return (int(self.answers.sum()), self.outputs)
        return (int(self.values(kind).sum()),) if kind == "attention" else (int(self.lengths.sum()), self.shape.width)

    def file_bytes(self, part: Part) -> int:
        """The exact size of a file."""
        return math.prod(self.file_shape(part.kind)) * part.dtype.itemsize

    def token_spans(self, rows: np.ndarray, mask: Tensor) -> list[slice]:
        """Where the tokens of each row of a batch stand; `mask` [B, L].

        Raises CacheError for rows and tokens that are not those of the cached examples.
        """
        tokens = mask.detach().cpu().numpy() != 0
        if not ((rows >= 0) & (rows < len(self.lengths))).all():
            raise CacheError(
                f"rows {rows.min()}..{rows.max()} are not all in the cache of {len(self.lengths)} examples"
            )
        counts, first = tokens.sum(axis=1), tokens.argmax(axis=1)
        for place in np.flatnonzero(counts != self.lengths[rows]):
            raise CacheError(
                f"example {rows[place]} has {counts[place]} tokens in the batch and {self.lengths[rows[place]]} in the "
                "teacher cache; make batches of the examples that the cache was opened with"
            )
        spans = [slice(start, start + count) for start, count in zip(first.tolist(), counts.tolist(), strict=True)]
        for row, of_row, span in zip(rows, tokens, spans, strict=True):
            if not of_row[span].all():
                raise CacheError(f"example {row} has padding between its tokens; a cache needs them side by side")
        return spans


def within(kind: str, span: slice) -> tuple[slice, ...]:
    """The place of one example's tokens in its padded state."""
    return (slice(None), span, span) if kind == "attention" else (span,)


class CacheFiles:
    """The folder of one teacher and one sequence of examples, named by `key`."""

    def __init__(self, folder: Path, key: str, layout: Layout) -> None:
        self.folder = folder
        self.key = key
        self.layout = layout

    def open(self, part: Part) -> np.ndarray:
        """The flat numbers of one file, memory-mapped."""
        return np.asarray(np.memmap(self.folder / part.file, dtype=part.dtype, mode="r"))

    def lacking(self, parts: Collection[Part], *, explain: bool = False) -> list[Part]:
        """The parts that are absent or not to be trusted; `explain` says on stderr which are not, and why."""
        trusted = self._trusted(explain)
        return [part for part in parts if part not in trusted]

    def check_space(self, size: int) -> None:
        """Raise CacheError unless so many bytes fit on the disk and leave 1 GiB or 5 % of the free space."""
        free = shutil.disk_usage(self.folder).free
        if size > free - min(GIB, 0.05 * free):
            raise CacheError(
                f"the teacher's outputs would take {size / GIB:.2f} GiB in {self.folder}, where {free / GIB:.2f} GiB "
                "are free; cache the logits only: --teacher-cache logits, or in another folder: --teacher-cache-folder"
            )

    def clear(self, parts: Collection[Part]) -> None:
        """Remove `parts`."""
        for part in parts:
            (self.folder / part.file).unlink(missing_ok=True)

    def values(self, part: Part, rows: np.ndarray, spans: list[slice], states: EncoderStates) -> Iterator[np.ndarray]:
        """The numbers of one file for one batch, example by example."""
        state: Any = getattr(states, field_of(part.kind))
        state = state if part.layer is None else state[part.layer]
        stored = (state.float() if part.kind == "logits" else state.half()).cpu().numpy()
        if part.kind == "logits":
            of_rows = np.split(stored, np.cumsum(self.layout.answers[rows])[:-1])
        else:
            of_rows = [padded[within(part.kind, span)] for padded, span in zip(stored, spans, strict=True)]
        for row, of_row in zip(rows, of_rows, strict=True):
            values = np.ascontiguousarray(of_row)
            shape = self.layout.example_shape(part.kind, row)
            if values.shape != shape:
                raise CacheError(f"{part}: the teacher gives {values.shape} for example {row}, its config says {shape}")
            if not np.isfinite(values).all():
                raise CacheError(
                    f"{part}: example {row} has a value that is NaN or beyond the range of {part.dtype} "
                    f"(±{np.finfo(part.dtype).max:.0f}); cache the logits only: --teacher-cache logits, or none"
                )
            yield values

    def _trusted(self, explain: bool = False) -> dict[Part, str]:
        """The files that the index lists, with its checksums, where they are as they were written."""
        path = self.folder / "index.json"
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            if (index["format"], index["key"]) != (FORMAT, self.key):
                raise ValueError("it belongs to another teacher or other examples")
            listed = {Part(entry["kind"], entry["layer"]): entry.get("sha256", "") for entry in index["files"]}
            faults = {part: self._fault(part, checksum) for part, checksum in listed.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            if explain:
                tell(f"{path} cannot be used ({error!r}); the teacher's outputs are cached anew")
            return {}
        for part in sorted(listed, key=str) if explain else ():
            if faults[part]:
                tell(f"{self.folder / part.file} {faults[part]}; it is not used, and written anew where it is needed")
        return {part: checksum for part, checksum in listed.items() if not faults[part]}

    def _fault(self, part: Part, checksum: str) -> str:
        """What is wrong with a file, or ''."""
        path, size = self.folder / part.file, self.layout.file_bytes(part)
        there = path.stat() if path.is_file() else None
        if there is None or there.st_size != size:
            return f"has {there.st_size if there else 0} bytes instead of {size}"
        same = _read_once(path, there.st_ino, there.st_mtime_ns) == checksum
        return "" if same else "has another checksum than when it was written"

    def list_also(self, written: dict[Part, str]) -> None:
        """Vouch for files, by their checksums, beside those that the index lists already."""
        parts = self._trusted() | written
        lengths = self.layout.lengths
        files = [
            {
                "file": part.file,
                "kind": part.kind,
                "layer": part.layer,
                "dtype": part.dtype.name,
                "shape": self.layout.file_shape(part.kind),
                "bytes": self.layout.file_bytes(part),
                "sha256": parts[part],
            }
            for part in sorted(parts, key=lambda part: part.file)
        ]
        index = {"format": FORMAT, "key": self.key, "rows": len(lengths), "tokens": int(lengths.sum()), "files": files}
        write_whole(self.folder / "index.json", json.dumps(index, indent=1) + "\n")


@cache
def _read_once(path: Path, *_: int) -> str:
    """The SHA-256 of a file; once per process, for one that is opened for every stage and trial."""
    return sha256(path)
