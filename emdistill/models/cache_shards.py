"""The teacher cache while it is written: cut into shards, which any number of processes compute together.

    FOLDER.lock            held for moments, by whoever reads or changes what follows
    FOLDER/progress.json   what is written (files, tokens per batch), and the SHA-256 of every shard that stands
    FOLDER/FILE.begun      the file as it will be, with holes where no shard stands yet
    FOLDER/shard-7.lock    held by the process that computes shard 7; free again where that one was killed

A process takes a shard that nobody is at, writes it at its place in the files and notes its checksum. Who finds all
noted reads the files once, has shards that differ computed again, flushes the files and gives them their names. Shards
and batches are a function of the examples' lengths: however many processes there are, and whichever are killed, the
bytes are the same, and a kill costs the shards that were in work. Shards are not flushed one by one, which would take
longer than an accelerator computes them: what a power cut takes of them is found by checksum.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from emdistill.errors import CacheError, tell
from emdistill.files import flush, write_whole
from emdistill.models.cache_files import CacheFiles, Layout, Part
from emdistill.processes import is_first_process
from emdistill.states import EncoderStates

PROGRESS = "progress.json"
MOST_SHARDS = 128  # noting one takes ten milliseconds, and losing one is to cost little
WAIT = 0.1  # seconds between two looks at shards that others are at
BLOCK = 2**20

Compute = Callable[[np.ndarray, Sequence[Part]], EncoderStates]


class Shard(NamedTuple):
    """Batches of examples, neighbours in the files, that one process computes."""

    number: int
    batches: list[np.ndarray]


def cut(layout: Layout, tokens: int) -> list[Shard]:
    """All examples in the order of the files, in batches of rows × longest within `tokens`, or of one."""
    starts = [0]
    while (start := starts[-1]) < len(layout.order):
        starts.append(start + max(1, tokens // max(1, int(layout.lengths[layout.order[start]]))))
    batches = np.split(layout.order, starts[1:-1])
    each = -(-len(batches) // MOST_SHARDS)
    firsts = range(0, len(batches), each)
    return [Shard(number, batches[first : first + each]) for number, first in enumerate(firsts)]


@dataclass
class Begun:
    """What is being written, by one process or several: which parts, by batches of `tokens`, and how far."""

    layout: Layout
    parts: list[Part]
    tokens: int
    sealed: dict[int, str]

    @cached_property
    def shards(self) -> list[Shard]:
        """All there are to compute."""
        return cut(self.layout, self.tokens)

    @property
    def is_whole(self) -> bool:
        """Whether every shard stands."""
        return len(self.sealed) == len(self.shards)

    def share(self, further: int = 0) -> float:
        """The share of all batches that stand, or are among `further` ones."""
        counts = [len(shard.batches) for shard in self.shards]
        return (sum(counts[number] for number in self.sealed) + further) / sum(counts)

    def span(self, part: Part, number: int) -> tuple[int, int]:
        """The first byte of a shard in a file, and the one after its last."""
        starts = self.layout.starts(part.kind)
        bounds = [int(starts[shard.batches[0][0]]) * part.dtype.itemsize for shard in self.shards[number : number + 2]]
        return bounds[0], bounds[1] if len(bounds) == 2 else self.layout.file_bytes(part)

    def bytes_to_come(self) -> int:
        """What the shards that do not stand yet take on the disk."""
        spans = [self.span(part, number) for part in self.parts for number in self.sealed]
        return sum(map(self.layout.file_bytes, self.parts)) - sum(stop - start for start, stop in spans)


class ShardWriter:
    """One of the processes that write `parts`, by batches of `tokens`."""

    def __init__(self, files: CacheFiles, parts: Sequence[Part], tokens: int) -> None:
        self.files, self.parts, self.tokens = files, list(parts), tokens
        self.folder = files.folder
        self._lock = FileLock(f"{self.folder}.lock")
        self._held: FileLock | None = None  # of the shard that this process is at
        self._digest: tuple[int, str] | None = None  # of the shard that it has written and not noted
        self._has_room = False  # that what is to come fits on the disk

    def write(self, compute: Compute, report: Callable[[float], object]) -> None:
        """Return once no part is lacking; until then compute shards, and wait where others are at the last ones.

        compute   (rows of a batch, parts) -> the teacher's states of these
        report    is told which share of the batches is done, by all processes together
        Raises CacheError where the states cannot be kept or do not fit on the disk. What stands by then is kept.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            while work := self._next(report):
                begun, shard = work
                self._digest = shard.number, self._written(begun, shard, compute, report)
        except BaseException as error:
            with suppress(OSError), self._lock:
                self._give_up(spoiled=self._held is not None and isinstance(error, CacheError))
            raise

    def _next(self, report: Callable[[float], object]) -> tuple[Begun, Shard] | None:
        """Note the shard that is written and take one that nobody is at; None once no part is lacking."""
        is_said = self._digest is not None  # not of the last shards, which end soon
        while True:
            with self._lock:
                self._seal()
                lacking = self.files.lacking(self.parts)
                while lacking and (begun := self._begun(lacking)).is_whole:
                    finished = self._finish(begun)
                    lacking = [part for part in lacking if part not in finished]
                if not lacking:
                    return None
                report(begun.share())
                if (shard := self._taken(begun)) is not None:
                    return begun, shard
            if not is_said and is_first_process():
                tell(f"another process is at the teacher cache {self.folder}; waiting for it")
            is_said = True
            time.sleep(WAIT)

    def _begun(self, lacking: list[Part]) -> Begun:
        """What is under way; where that is nothing, or others' work that they have left, the parts lacking here.

        Work on other parts is shared while others are at it: they are needed too, or were there already.
        """
        begun = self._read()
        is_ours = begun is not None and {*begun.parts} == {*lacking} and begun.tokens == self.tokens
        is_new = begun is None or not (is_ours or begun.is_whole or self._is_attended())
        if begun is None or is_new:
            self._forget()
            self.files.clear(self.files.lacking(lacking, explain=True))
            begun = Begun(self.files.layout, lacking, self.tokens, {})
        if not self._has_room:
            self.files.check_space(begun.bytes_to_come())
            self._has_room = True
        if is_new:
            self._note(begun)
        return begun

    def _taken(self, begun: Begun) -> Shard | None:
        """A shard that does not stand and that nobody is at, locked; None where there is none."""
        for shard in begun.shards:
            if shard.number not in begun.sealed:
                lock = FileLock(self.folder / f"shard-{shard.number}.lock")
                with suppress(Timeout):
                    lock.acquire(timeout=0)
                    self._held = lock
                    return shard
        return None

    def _written(self, begun: Begun, shard: Shard, compute: Compute, report: Callable[[float], object]) -> str:
        """The checksum of a shard, which is computed and written at its place in every file."""
        digests = {part: hashlib.sha256() for part in begun.parts}
        with ExitStack() as stack:
            opened = {}
            for part in begun.parts:
                path = self._path(part)
                path.touch()
                opened[part] = stack.enter_context(path.open("r+b"))
                opened[part].seek(begun.span(part, shard.number)[0])
            for done, rows in enumerate(shard.batches, 1):
                states = compute(rows, begun.parts)
                spans = self.files.layout.token_spans(rows, states.mask)
                for part, file in opened.items():
                    for values in self.files.values(part, rows, spans, states):
                        file.write(values.data)
                        digests[part].update(values.data)
                report(begun.share(done))
        return _joined(digests.values())

    def _seal(self) -> None:
        """Note the shard that this process has written, if any, and let go of it."""
        begun = self._read()
        if self._digest is not None and begun is not None:
            begun.sealed |= [self._digest]
            self._note(begun)
        self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.release()
            Path(self._held.lock_file).unlink(missing_ok=True)
        self._held = self._digest = None

    def _finish(self, begun: Begun) -> list[Part]:
        """Give the files their names and list them, where all shards are as they were noted; parts that are done.

        Shards that differ are to be computed again. Files that a killed process has renamed already are read too.
        """
        whole = {part: hashlib.sha256() for part in begun.parts}
        begun_paths = {part: self._path(part) for part in begun.parts}
        paths = {part: path if path.exists() else self.folder / part.file for part, path in begun_paths.items()}
        for shard in begun.shards:
            own = {part: hashlib.sha256() for part in begun.parts}
            for part, path in paths.items():
                for block in _blocks(path, *begun.span(part, shard.number)):
                    own[part].update(block)
                    whole[part].update(block)
            if begun.sealed[shard.number] != _joined(own.values()):
                del begun.sealed[shard.number]
        if not begun.is_whole:
            self._note(begun)
            return []
        for path in paths.values():
            flush(path)
        for part, path in paths.items():
            path.replace(self.folder / part.file)
        flush(self.folder)
        self.files.list_also({part: digest.hexdigest() for part, digest in whole.items()})
        self._forget()
        return begun.parts

    def _give_up(self, *, spoiled: bool) -> None:
        """Leave to others, or to the next time, what stands; nothing where states cannot be kept."""
        self._let_go()
        begun = self._read()
        if (spoiled or begun is None or not begun.sealed) and not self._is_attended():
            self._forget()

    def _is_attended(self) -> bool:
        """Whether any process is at a shard."""
        for path in self.folder.glob("shard-*.lock"):
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return True
            lock.release()
        return False

    def _path(self, part: Part) -> Path:
        return self.folder / f"{part.file}.begun"

    def _read(self) -> Begun | None:
        """What progress.json says; None where there is none that can be read."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            noted = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
            parts = [Part(kind, layer) for kind, layer in noted["parts"]]
            sealed = {int(number): str(digest) for number, digest in noted["sealed"].items()}
            begun = Begun(self.files.layout, parts, int(noted["tokens_per_batch"]), sealed)
            if {*sealed} <= {shard.number for shard in begun.shards}:
                return begun
        return None

    def _note(self, begun: Begun) -> None:
        noted = {"parts": begun.parts, "tokens_per_batch": begun.tokens, "sealed": begun.sealed}
        write_whole(self.folder / PROGRESS, json.dumps(noted) + "\n")

    def _forget(self) -> None:
        """Remove what was begun, and what killed processes have left half written."""
        for pattern in (PROGRESS, "*.begun", "shard-*.lock", "*.part"):
            for leftover in self.folder.glob(pattern):
                leftover.unlink(missing_ok=True)


def _joined(digests: Iterable[Any]) -> str:
    """One checksum of the checksums of a shard in each file."""
    return hashlib.sha256("".join(digest.hexdigest() for digest in digests).encode()).hexdigest()


def _blocks(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """These bytes of a file, or as many of them as there are."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(start)
        while start < stop and (block := file.read(min(BLOCK, stop - start))):
            start += len(block)
            yield block
