"""Malformed inputs for every reader: each is read, or refused by an error of this project.

    python benchmarks/fuzz.py                                    10,000 inputs, spread evenly over the readers
    python benchmarks/fuzz.py --reader "run.json" --number 17    one of them again; its files stay in --output

Input N of a reader is a function of (seed, reader, N): one file of a small valid input (fuzz_readers.py) with one to
four mutations, of its bytes or of the values that it holds. An input fails where a call raises anything but an
EmdistillError, takes more than --seconds, or adds more than --megabytes to the memory of the process. Inputs are read
by a process of their own, which is started again where one of them ends it.
"""

import argparse
import faulthandler
import io
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import yaml
from fuzz_readers import PACK, READERS, Files, parquet

from emdistill.data.compressed import OPENERS
from emdistill.errors import EmdistillError

ADDRESS_SPACE = (
    8 * 2**30
)  # bytes beyond what is there: an input that asks for more than the machine has must not take it

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 2, 0.5, 1e308, 10**30, -(10**30), float("nan"), float("inf"), "", " ", "\0", "nan",
    "1e400", "../../etc/passwd", "/etc/passwd", "\x1b[31mred\x1b[0m", "\u202e", "\ud83d", "a" * 70_000,
    "<script>alert(1)</script>", "{0.__class__}", "%s%n", [], {}, [[]], [None], {"": None}, {"__class__": "os.system"},
    [1, 2, 3], ["x"] * 100, "[" * 20_000, "&a [*a]", "!!timestamp x", "2001-99-99", "9" * 5_000, 2**62, 10**9, 2**20,
    [[1, 2], [3]],
)  # fmt: skip
# Ten lists, each of which names the one before ten times: 10^10 words once they are written out.
BOMB = b"b0: &b0 [x]\n" + b"".join(
    b"b%d: &b%d [%s]\n" % (place, place, b",".join([b"*b%d" % (place - 1)] * 10)) for place in range(1, 11)
)
SNIPPETS = (
    b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\r", b"\r\n", b"\n\n", b"\t", b",", b'"', b"'", b"{", b"[", b"]", b"}",
    b":", b"[" * 20_000, b'{"a":' * 20_000, b"- " * 5_000, b"#", b"\\ud800", b"\\u0000", b"NaN", b"Infinity", b"1e999",
    b"9" * 5_000, b"\xef\xbb\xbf", b"\x1b[2J", b"a" * 100_000, b"!!python/object/apply:os.system ['true']", b"? ",
    b"2001-99-99", b"&a [*a]", b"!!timestamp x", b"!!int ''", b"!!bool x", BOMB, b"<<: *a", b"0x", b"1_000", b"~",
    b"-DOCSTART-",
)  # fmt: skip
TEXT_CODECS = ("utf-16", "utf-16-le", "utf-8-sig", "utf-32", "latin-1", "cp037")
KINDS = ("accepted", "refused")  # of outcomes; all others are failures
WAITING = 30  # times --seconds: by the clock, for an input that waits and computes nothing
MUTATIONS = (1, 1, 1, 2, 4)


# bytes


def mutated_bytes(content: bytes, draw: Random) -> bytes:
    """The content with one change that knows nothing of its format."""
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    end = min(end, start + 200)
    change = draw.randrange(8)
    if change == 0:
        return content[:start]
    if change == 1:
        return content[:start] + content[end:]
    if change == 2:
        return content[:start] + content[start:end] * draw.choice((2, 3, 50)) + content[end:]
    if change == 3:
        return content[:start] + draw.choice(SNIPPETS) + content[start:]
    if change == 4:
        return content[:start] + draw.choice(SNIPPETS) + content[end:]
    if change == 5:
        return content[:start] + draw.randbytes(draw.choice((1, 1, 4, 16))) + content[start + 1 :]
    if change == 6:
        return content.decode("utf-8", "replace").encode(draw.choice(TEXT_CODECS), "replace")
    rows = content.split(b"\n")
    draw.shuffle(rows)
    return draw.choice((b"\n", b"\r", b"\r\n", b"")).join(rows)


# values


def mutated_value(value: Any, draw: Random) -> Any:
    """Plain values with one of them replaced, removed, repeated, renamed or wrapped."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice([*value])
        change = draw.randrange(8)
        if change == 0:
            return {key: item for key, item in value.items() if key != name}
        if change == 1:
            return value | {draw.choice(("extra", "", name + "2", name.upper(), "../x")): draw.choice(HOSTILE)}
        if change == 2:
            return {(name[::-1] if key == name else key): item for key, item in value.items()}
        return value | {name: mutated_value(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        change = draw.randrange(6)
        if change == 0:
            return value[:place] + value[place + 1 :]
        if change == 1:
            return value * draw.choice((2, 20))
        return [*value[:place], mutated_value(value[place], draw), *value[place + 1 :]]
    if draw.random() < 0.2:
        return draw.choice(([value], {"value": value}, str(value), [value] * 3))
    return draw.choice(HOSTILE)


def of_json(content: bytes, draw: Random) -> bytes:
    return json.dumps(mutated_value(json.loads(content), draw), ensure_ascii=draw.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


def of_json_line(content: bytes, draw: Random) -> bytes:
    rows = content.split(b"\n")
    place = draw.randrange(max(1, len(rows) - 1))
    rows[place] = of_json(rows[place], draw)
    return b"\n".join(rows)


def of_yaml(content: bytes, draw: Random) -> bytes:
    return yaml.safe_dump(mutated_value(yaml.safe_load(content), draw)).encode("utf-8", "surrogatepass")


def of_cells(between: str) -> Callable[[bytes, Random], bytes]:
    """A table with another cell somewhere."""

    def changed(content: bytes, draw: Random) -> bytes:
        rows = [row.split(between) for row in content.decode().splitlines()]
        row = draw.choice(rows)
        row[draw.randrange(len(row))] = str(draw.choice(HOSTILE))
        return "\n".join(map(between.join, rows)).encode("utf-8", "surrogatepass")

    return changed


def of_parquet(content: bytes, draw: Random) -> bytes:
    rows = pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    name, value = draw.choice([*rows[0]]), draw.choice(HOSTILE)
    every = draw.random() < 0.5
    return parquet([row | {name: value} if every or not place else row for place, row in enumerate(rows)])


def of_safetensors(content: bytes, draw: Random) -> bytes:
    """Another header over the same tensors."""
    length = int.from_bytes(content[:8], "little")
    header = of_json(content[8 : 8 + length], draw)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


OF_VALUES: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": of_json, ".jsonl": of_json_line, ".yaml": of_yaml, ".csv": of_cells(","), ".tsv": of_cells("\t"),
    ".conll": of_cells(" "), ".conllu": of_cells("\t"), ".parquet": of_parquet, ".safetensors": of_safetensors,
}  # fmt: skip


def mutated(name: str, content: bytes, draw: Random) -> bytes:
    """A file with one to four mutations; of a packed one what is inside, half of the time."""
    suffix = Path(name).suffix
    is_inner = suffix in PACK and draw.random() < 0.5
    if is_inner:
        content = OPENERS[suffix](io.BytesIO(content)).read()
    of_values = OF_VALUES.get(suffix)
    for _ in range(draw.choice(MUTATIONS)):
        try:
            by_value = of_values is not None and draw.random() < 0.6
            content = of_values(content, draw) if by_value else mutated_bytes(content, draw)
        except Exception:  # the mutation before has left no values to change
            content = mutated_bytes(content, draw)
    return PACK[suffix](content) if is_inner else content


def broken_input(name: str, number: int, seed: int) -> Files:
    """Input `number` of a reader; the one before the first, -1, is valid."""
    reader, draw = READERS[name], Random(f"{seed} {name} {number}")
    files = dict(reader.files())
    if number >= 0:
        file = draw.choice(reader.broken or [*files])
        files[file] = mutated(file, files[file], draw)
    return files


# reading


@dataclass(frozen=True)
class Limits:
    """What one input may take."""

    seconds: float
    megabytes: float


def outcome(name: str, files: Files, folder: Path, megabytes: float) -> str:
    """'accepted' where all calls accept it, 'refused', or what went wrong; `files` are written into `folder`."""
    for file, content in files.items():
        place = folder / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    result, before = "accepted", peak_memory()
    for call in READERS[name].calls:
        try:
            call(folder)
        except EmdistillError as error:
            result = "refused"
            if isinstance(error.__cause__ or error.__context__, MemoryError):
                return f"it asked for all memory\n{traceback.format_exc(limit=-6)}"
        except Exception:
            return traceback.format_exc(limit=-6)
    grown = (peak_memory(reset=False) - before) / 2**20
    return f"it took {grown:.0f} MB" if grown > megabytes else result


def peak_memory(*, reset: bool = True) -> int:
    """The most bytes that this process has held since the last reset; Linux alone tells."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[0])


def read_all(name: str, numbers: range, seed: int, limits: Limits, log: Path, results: Connection) -> None:
    """The worker: sends what becomes of each input; where one takes too long, the stack goes to `log`, and it ends."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    READERS[name].files()
    space = 4096 * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    with log.open("w") as stacks:
        faulthandler.enable(stacks)
        faulthandler.register(signal.SIGPROF, stacks, chain=True)  # and then the signal ends the process
        for number in numbers:
            files = broken_input(name, number, seed)
            with tempfile.TemporaryDirectory() as folder:
                signal.setitimer(signal.ITIMER_PROF, limits.seconds)
                faulthandler.dump_traceback_later(WAITING * limits.seconds, exit=True, file=stacks)
                results.send(outcome(name, files, Path(folder), limits.megabytes))
                signal.setitimer(signal.ITIMER_PROF, 0)
                faulthandler.cancel_dump_traceback_later()


def outcomes(name: str, numbers: range, seed: int, limits: Limits) -> Iterator[tuple[int, str]]:
    """What becomes of each input, read by workers."""
    while numbers:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "stacks")
            receiver, sender = multiprocessing.Pipe(duplex=False)
            worker = multiprocessing.get_context("fork").Process(
                target=read_all, args=(name, numbers, seed, limits, log, sender)
            )
            worker.start()
            sender.close()
            try:
                while numbers:
                    result = receiver.recv()
                    yield numbers[0], result
                    numbers = numbers[1:]
            except EOFError:
                stack = log.read_text() if log.exists() else ""
                yield numbers[0], f"the process ended ({worker.exitcode or 'too slow'})\n{stack[:3000]}"
                numbers = numbers[1:]
            worker.join()


def keep(name: str, number: int, seed: int, result: str, folder: Path) -> str:
    """Keep an input and what became of it; the command that reads it again."""
    place = folder / f"{name.replace(' ', '-').replace(',', '')}-{number}"
    for file, content in {**broken_input(name, number, seed), "outcome.txt": result.encode()}.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(content)
    again = f"python benchmarks/fuzz.py --reader '{name}' --number {number} --seed {seed}"
    return f"{place}: {result}\n    again: {again}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="how many, all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=[*READERS], help="this one alone")
    parser.add_argument("--number", type=int, help="this input alone")
    parser.add_argument("--seconds", type=float, default=20, help="of computing that one input may take")
    parser.add_argument("--megabytes", type=float, default=512, help="that one input may add to the process")
    parser.add_argument("--output", type=Path, default=Path("fuzz-failures"), help="folder of the inputs that fail")
    options = parser.parse_args()
    names = [options.reader] if options.reader else [*READERS]
    limits, failures = Limits(options.seconds, options.megabytes), 0
    print(f"{'reader':20} {'inputs':>7} {'accepted':>9} {'refused':>8} {'failed':>7} {'seconds':>8}")
    for place, name in enumerate(names):
        share = (place + 1) * options.inputs // len(names) - place * options.inputs // len(names)
        numbers = range(share) if options.number is None else range(options.number, options.number + 1)
        counts: Counter[str] = Counter()
        began, shown = time.monotonic(), set[str]()
        for number, result in outcomes(name, numbers, options.seed, limits):
            kind = result if result in KINDS else "failed"
            counts[kind] += 1
            if kind == "failed" or options.number is not None:
                report = keep(name, number, options.seed, result, options.output)
                fault = "".join(re.findall(r'File ".*", line \d+', result)[-1:])
                if fault not in shown:  # one of each fault is enough to read
                    print(report)
                    shown |= {fault} - {""}
        failures += counts["failed"]
        columns = f"{counts['accepted']:9} {counts['refused']:8} {counts['failed']:7} {time.monotonic() - began:8.1f}"
        print(f"{name:20} {len(numbers):7} {columns}", flush=True)
    print(f"{failures} failed")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
