"""What every benchmark here shares: interleaved timing, spread, peak memory, the table printed and the JSON kept.

Machines differ and drift, so contenders take turns within one run and only their ratios count; the GEMM rate of the
run says how fast the machine was just then.
"""

import argparse
import contextlib
import ctypes
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from emdistill.ship.measurement import processor_name

PIPE_WIDTH = 150


def arguments(description: str, **extra: dict[str, Any]) -> argparse.ArgumentParser:
    """The options every script takes; extra: name={"default": …, "help": …}, as add_argument takes them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="small sizes, to see that it runs; no figures")
    parser.add_argument("--rounds", type=_positive, help="how often each contender is timed")
    threads = torch.get_num_threads()
    parser.add_argument("--threads", type=_positive, default=threads, help="threads of PyTorch (default: all cores)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="keep the figures here")
    for name, settings in extra.items():
        parser.add_argument("--" + name.replace("_", "-"), **settings)
    return parser


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1, settle: bool = False
) -> dict[str, list[float]]:
    """Seconds of each contender in each round, in an order drawn anew each round: none always follows another.

    settle: call each once untimed before its timed call, so that caches and the memory it is given are those of a
    loop of its own, not what another contender left
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    for turn in range(-warmup, rounds):
        for name in order.sample(names, len(names)):
            if settle and turn >= 0:
                contenders[name]()
            began = time.perf_counter()
            contenders[name]()
            took = time.perf_counter() - began
            if turn >= 0:
                seconds[name].append(took)
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds, and the number of rounds."""
    return {**_quartiles([1e3 * value for value in seconds]), "rounds": len(seconds)}


def ratio(baseline: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times faster: median and quartiles of baseline/ours, each pair from one round."""
    return _quartiles([theirs / own for theirs, own in zip(baseline, ours, strict=True)])


def gemm_rate(size: int = 1024, rounds: int = 5) -> float:
    """The float32 FLOP/s of a plain matrix product just now, median."""
    left, right, out = torch.rand(size, size), torch.rand(size, size), torch.empty(size, size)
    seconds = interleave({"product": lambda: torch.mm(left, right, out=out)}, rounds, warmup=2)
    return 2 * size**3 / statistics.median(seconds["product"])


def machine() -> dict[str, Any]:
    """Processor, cores, threads, versions and date: what a figure depends on."""
    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "emdistill")},
        "date": datetime.now(UTC).date().isoformat(),
    }


def peak_memory(script_args: list[str]) -> float:
    """The MB that `python SCRIPT --child …` says it needed, in a fresh process: the last line it prints.

    script_args: the script's path, "--child" and what it takes; the child prints `memory_rise(stage)`. Large blocks
    are mapped one by one there, so that what is measured is what was held and not the allocator's gaps.
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, *script_args]
    child = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if child.returncode != 0:
        raise SystemExit(f"{Path(script_args[0]).name} {' '.join(script_args[1:])} failed:\n{child.stderr}")
    return float(child.stdout.split()[-1])


def memory_rise(stage: Callable[[], object]) -> float:
    """MB by which the stage's highest resident memory exceeds what was resident before it (inputs included there)."""
    _forget_earlier_memory()
    before = _memory("VmRSS")
    kept = stage()
    rise = _memory("VmHWM") - before
    del kept
    return rise


def relative_error(values: Tensor, truth: Tensor) -> float:
    """‖values − truth‖ / ‖truth‖, in float64."""
    truth = truth.detach().double()
    return ((values.detach().double() - truth).norm() / truth.norm()).item()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """One table; the first column names the row."""
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(str, row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    console.print(title, table, sep="\n", highlight=False)


def shown(figures: Mapping[str, float], scale: float = 1, unit: str = "") -> str:
    """'median (low–high)' of a summary or a ratio."""
    median, low, high = (f"{_three_digits(scale * figures[key])}" for key in ("median", "low", "high"))
    return f"{median}{unit} ({low}–{high})"


def save(path: Path | None, record: Mapping[str, Any]) -> None:
    """Print the run's GEMM rate; write record, machine, rate and command to path, whole or not at all."""
    rate = gemm_rate()
    print(f"GEMM rate of this run: {rate / 1e9:.0f} GFLOP/s in float32, {torch.get_num_threads()} threads")
    if path is None:
        return
    whole = {"command": _command(sys.argv), "machine": machine(), "gemm_rate": rate, **record}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be 1 or more")
    return value


def _quartiles(values: Sequence[float]) -> dict[str, float]:
    if len(values) == 1:
        return dict.fromkeys(("median", "low", "high"), values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _command(argv: Sequence[str]) -> str:
    """Script name and flags, every path cut to its file name."""
    words = [f"benchmarks/{Path(argv[0]).name}"]
    for word in argv[1:]:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(flag + equals + (Path(value).name if value else ""))
    return " ".join(["python", *words])


def _forget_earlier_memory() -> None:
    """Return freed memory to the system and start the highest resident memory anew, where the system can (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _memory(field: str) -> float:
    """This process's resident memory in MB, now (VmRSS) or at its highest (VmHWM).

    From /proc: unlike ru_maxrss, it does not start at what the parent process held.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        raise SystemExit("peak memory is read from /proc, which this system has not: measure it on Linux")
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024 / 1e6
