"""That several processes compute one teacher cache, byte for byte, each row once, whichever of them are killed.

    python benchmarks/shared_cache.py --workers 1,2,4 --trials 20

In each trial so many processes open the same empty cache. At random moments single ones are killed (SIGKILL) and others
come in their place, and once all are killed together. In the end all files are compared with those of one undisturbed
process, and the rows that were computed are counted: a kill may cost the shard that was in work, and nothing else.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emdistill.console import Table, markdown

HERE = Path(__file__).resolve().parent
ROWS, TOKENS = 400, 48  # rows, and tokens per batch: about 80 shards of one batch
WORDS = ("good", "bad", "movie", "book", "it", "was", "not", "very")


def main(argv: Sequence[str] | None = None) -> None:
    options = _options(argv)
    sys.path.insert(0, str(HERE.parent / "tests"))
    lines, faults = [], []
    with tempfile.TemporaryDirectory(prefix="shared-cache-") as folder:
        bench = Bench(Path(folder))
        print(f"{ROWS} rows in {len(bench.batches)} shards; one process alone: {bench.seconds:.1f} s", flush=True)
        for workers in map(int, options.workers.split(",")):
            draw = random.Random(options.seed)
            trials = [bench.trial(workers, draw) for _ in range(options.trials)]
            kills, twice = sum(trial.kills for trial in trials), sum(trial.twice for trial in trials)
            faults += [f"{workers} workers: {trial.fault}" for trial in trials if trial.fault]
            wrong = sum(bool(trial.fault) for trial in trials)
            lines.append([str(number) for number in (workers, len(trials), kills, twice, wrong)])
    headings = ["workers", "trials", "processes killed", "shards computed twice", "other bytes or counts"]
    table = markdown(Table(headings, lines))
    if options.output:
        options.output.write_text(table, encoding="utf-8")
    print(table, *faults, sep="\n")
    sys.exit(bool(faults))


@dataclass(frozen=True)
class Trial:
    """Processes that were killed while they were at work, shards computed twice, and what was wrong, or ''."""

    kills: int
    twice: int
    fault: str


class Bench:
    """A teacher, its examples, their cache, and a log of what was computed, by whatever process."""

    def __init__(self, folder: Path) -> None:
        import torch
        from conftest import make_encoder, make_tokenizer
        from datasets import Dataset

        from emdistill.data.batches import PaddingCollator, tokenise
        from emdistill.models import Teacher
        from emdistill.models.teacher_cache import open_teacher_cache

        torch.set_num_threads(1)
        self.cache, self.log = folder / "cache", folder / "log"
        tokenizer = make_tokenizer()
        collate = PaddingCollator(tokenizer)
        # No two texts are alike: the digits of their number, to base 8, as words.
        texts = [" ".join(WORDS[row >> shift & 7] for shift in (6, 3, 0)) + " it" * (row % 5) for row in range(ROWS)]

        def noted(rows: list[dict[str, Any]]) -> Any:
            number = zlib.crc32(repr([row["input_ids"] for row in rows]).encode())
            with self.log.open("ab", buffering=0) as log:
                log.write(b"%08x" % number)
            return collate(rows)

        self.open = partial(
            open_teacher_cache, Teacher(make_encoder("bert", layers=3, width=16, heads=2)),
            tokenise(Dataset.from_dict({"text": texts}), tokenizer, 64), self.cache,
            needs=("hidden", "attention"), collate=noted, tokens_per_batch=TOKENS,
        )  # fmt: skip
        began = time.perf_counter()
        self.open()
        self.seconds = time.perf_counter() - began
        self.files, self.batches = self._files(), self._computed()
        assert set(self.batches.values()) == {1}, "batches are told apart by their rows"

    def trial(self, workers: int, draw: random.Random) -> Trial:
        """The cache is computed anew, and disturbed."""
        shutil.rmtree(self.cache)
        self.log.unlink()
        living, kills = [self._worker() for _ in range(workers)], 0
        for _ in range(3):
            time.sleep(draw.uniform(0, self.seconds / 2 / workers))
            place = draw.randrange(workers)
            kills += self._kill([living[place]])
            living[place] = self._worker()
        time.sleep(draw.uniform(0, self.seconds / 2 / workers))
        kills += self._kill(living)
        codes = [os.waitpid(child, 0)[1] for child in [self._worker() for _ in range(workers)]]
        computed = self._computed()
        twice = computed.total() - len(self.batches)
        fault = f"{twice} shards computed twice, {kills} processes killed" if twice > kills else ""
        if self._files() != self.files or {*computed} != {*self.batches}:
            fault = "other files, or other batches, than one process has"
        return Trial(kills, twice, f"exit codes {codes}" if any(codes) else fault)

    def _worker(self) -> int:
        """A forked process that opens the cache."""
        if child := os.fork():
            return child
        code = 1
        with contextlib.suppress(BaseException):
            self.open()
            code = 0
        os._exit(code)

    def _kill(self, children: Sequence[int]) -> int:
        """How many of them had not ended before."""
        for child in children:
            os.kill(child, signal.SIGKILL)  # it is waited for below, so that its number is still its own
        return sum(os.WIFSIGNALED(os.waitpid(child, 0)[1]) for child in children)

    def _files(self) -> dict[str, bytes]:
        """All that stands in the cache's one folder; beside it is its lock."""
        return {path.name: path.read_bytes() for path in self.cache.glob("*/*")}

    def _computed(self) -> Counter[bytes]:
        content = self.log.read_bytes()
        return Counter(content[start : start + 8] for start in range(0, len(content), 8))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4", help="counts of processes, separated by commas")
    parser.add_argument("--trials", type=int, default=20, help="of each count")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="write the table there too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
