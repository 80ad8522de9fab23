"""That nothing is lost: short runs whose n-th write fails, for every n, or that are killed; then they are gone on with.

    python benchmarks/faults.py writes --case steps             # every write, rename and fsync fails once: disk full
    python benchmarks/faults.py kills --case steps --moments 50  # SIGKILL at random moments
    python benchmarks/faults.py writes --case steps --first 101 --last 200
    python benchmarks/faults.py kills --case steps --processes 2  # one training by two processes, all killed at once

Each time the command is then called as its user would, with --resume where a run stands, and has to leave the files of
the undisturbed run, bit for bit: student, flows with layer weights, graph, mapping. Batches that were learned twice are
counted; one interval between two checkpoints is the most. A failed write has to end in this project's error, or do no
harm. Failing is done by faults.c, preloaded, so that every library is met; children are forked from one process, so
that none of them waits for imports.
"""

import argparse
import contextlib
import ctypes
import itertools
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PRELOADED = "FAULTS_PRELOADED"
BATCHES_PER_EPOCH = 6
GRACE = 5.0  # seconds from SIGTERM to SIGKILL for the processes of a training of which one has failed


@dataclass(frozen=True)
class Case:
    """A command, what it leaves, and how many batches lie between two checkpoints.

    words    of the command; {place} is the folder of teacher and data, {out} the output
    outcome  patterns of the files that must be alike, below the output
    before   a command whose output is there already
    """

    words: str
    outcome: tuple[str, ...] = ("student/model.safetensors", "flows.jsonl", "predictions.jsonl")
    interval: int = BATCHES_PER_EPOCH
    before: str = ""


SHORT = (
    "--student 2 --training.per_device_train_batch_size 8 --training.learning_rate 5e-3 --training.disable_tqdm "
    "--training.flow_steps 1 --training.logging_steps 3"
)
ROWS = "--data {place}/reviews.csv --baselines none --check_teacher false"
DISTILL = f"distill --teacher {{place}}/teacher {ROWS} {SHORT} --output {{out}}"
TWO_EPOCHS = "--training.num_train_epochs 2"
CASES = {
    "epochs": Case(f"{DISTILL} --method bert-emd {TWO_EPOCHS}"),
    "steps": Case(
        f"{DISTILL} --method bert-emd {TWO_EPOCHS} --select last --training.gradient_accumulation_steps 2 "
        "--training.save_strategy steps --training.save_steps 2",
        interval=4,
    ),
    "stages": Case(f"{DISTILL} --method tinybert --training.num_train_epochs 3 --select last"),
    "cache": Case(f"{DISTILL} --method tinybert --teacher_cache states --training.num_train_epochs 2 --select last"),
    "text": Case(
        f"distill --task text --teacher {{place}}/encoder --data {{place}}/text.txt {SHORT} --max_length 16 --output "
        f"{{out}} --method bert-emd {TWO_EPOCHS} --training.save_strategy steps --training.save_steps 4",
        ("student/model.safetensors", "flows.jsonl"),
        4,
    ),
    "overwrite": Case(
        f"{DISTILL} --method bert-emd --training.num_train_epochs 1 --seed 2 --overwrite",
        before=f"{DISTILL} --method bert-emd --training.num_train_epochs 1 --seed 1",
    ),
    "compare": Case(
        f"compare --methods bert-emd,soft-targets --seeds 1 --teacher {{place}}/teacher {ROWS} {SHORT} --output {{out}}"
        " --training.num_train_epochs 1",
        ("runs/*/student/model.safetensors", "runs/*/flows.jsonl"),
    ),
    "search": Case(
        "search-mapping --teacher {place}/teacher --data {place}/reviews.csv --output {out} --student 2 --rows 20 "
        "--score_rows 16 --population 2 --evaluations 3 --random_evaluations 1 "
        "--training.per_device_train_batch_size 8 --training.learning_rate 5e-3 --check_teacher false",
        ("best.json",),
    ),
    "chains": Case(
        "search-chain --teacher {place}/teacher --data {place}/reviews.csv --output {out} --operators af --blocks 2 "
        "--epochs 2 --rounds 2 --bins 2 --judged 4 --survivors 2 --batch_size 8",
        ("students/*/model.safetensors",),
    ),
    # What is delivered hangs on the clock: that the command goes on and delivers is all that can be asked.
    "compress": Case(
        "compress --teacher {place}/teacher --data {place}/reviews.csv --output {out} --budget 1000ms,100MB "
        "--students 2 --methods soft-targets --finals 1 --epochs 2 --hours 0.004 --check_teacher false --threads 1 "
        "--training.per_device_train_batch_size 8 --training.disable_tqdm",
        (),
        interval=10**9,
    ),
    "export": Case("export {place}/run --onnx --output {out} --threads 1 --data {place}/reviews.csv", ("model.onnx",)),
}


def main(argv: Sequence[str] | None = None) -> None:
    options = _options(argv)
    if not os.environ.get(PRELOADED):
        _again_with_faults(sys.argv[1:] if argv is None else argv)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        bench = Bench(Path(folder), CASES[options.case], options.processes)
        whole = bench.undisturbed()
        print(
            f"{options.case}: {whole.writes} writes, renames and fsyncs, {whole.batches} batches, "
            f"{whole.seconds:.1f} s undisturbed",
            flush=True,
        )
        if options.what == "writes":
            numbers = range(options.first, min(options.last or whole.writes, whole.writes) + 1, options.every)
            trials: Mapping[Any, Callable[[], Trial]] = {n: lambda n=n: bench.failing(n, whole) for n in numbers}
        else:
            draw = random.Random(options.seed)
            moments = [draw.uniform(0, whole.seconds) for _ in range(options.moments)]
            trials = {
                f"{number}, {moment:.2f} s": lambda moment=moment: bench.killed(moment, whole)
                for number, moment in enumerate(moments, start=1)
            }
        done = {}
        for name, trial in trials.items():
            done[name] = trial()
            if done[name].fault:
                print(f"  {name}: {done[name].fault}", flush=True)
    _say(options, done)


@dataclass(frozen=True)
class Whole:
    """What the undisturbed run took and left."""

    writes: int
    batches: int
    seconds: float
    files: dict[str, bytes]


@dataclass(frozen=True)
class Trial:
    """What a disturbance did: whether it was felt, batches learned twice, and what was wrong, or ''."""

    felt: bool
    twice: int
    fault: str


class Bench:
    """A folder with a teacher, data and outputs, in which commands are run by forked children.

    processes   that do a training together, as torchrun starts them
    """

    def __init__(self, folder: Path, case: Case, processes: int = 1) -> None:
        self.folder, self.case, self.processes = folder, case, 1
        self.out, self.counter, self.count = folder / "out", folder / "batches", folder / "writes"
        self._prepare()
        self.processes = processes
        self.before = folder / "before"
        if case.before:
            assert self._run(self._words(case.before)) == 0, self.told
            shutil.copytree(self.out, self.before)

    def undisturbed(self) -> Whole:
        """The run itself; and once more as if a disk had failed at no write, which counts them."""
        self._clear()
        began = time.perf_counter()
        assert self._run(self._words(self.case.words)) == 0, self.told
        seconds = time.perf_counter() - began
        return Whole(int(self.count.read_text()), self._batches(), seconds, self._files())

    def failing(self, n: int, whole: Whole) -> Trial:
        """The n-th write fails."""
        self._clear()
        code = self._run(self._words(self.case.words), fails_at=n)
        if code not in (0, 2) or "Traceback" in self.told:
            return Trial(True, 0, f"exit {code}: {self.told[-1500:]}")
        return self._go_on(code != 0, whole)

    def killed(self, moment: float, whole: Whole) -> Trial:
        """SIGKILL after so many seconds."""
        self._clear()
        code = self._run(self._words(self.case.words), kill_after=moment)
        return self._go_on(code != 0, whole)

    def _go_on(self, felt: bool, whole: Whole) -> Trial:
        """Call the command again until it is done, as its user would; compare what it leaves."""
        if felt:
            words = self._words(self.case.words)
            words = [word for word in words if word != "--overwrite"]
            ways = [[*words, "--resume"], words, [*words, "--overwrite"]] if words[0] == "distill" else [words]
            if "--overwrite" in self._words(self.case.words):
                ways.pop(1)
            codes = []
            for way in ways:  # each where the one before says so
                codes.append(self._run(way))
                if codes[-1] == 0:
                    break
            if codes[-1] != 0 or len(codes) == 3:
                return Trial(felt, 0, f"cannot be gone on with, {codes}: {self.told[-1500:]}")
        files = self._files()
        names = sorted({*files, *whole.files})
        differing = [
            difference(name, whole.files.get(name), files.get(name))
            for name in names
            if files.get(name) != whole.files.get(name)
        ]
        twice = max(0, self._batches() - whole.batches)
        fault = f"other files: {'; '.join(differing)}; told: {self.told[-1500:]}" if differing else ""
        if twice > self.case.interval:
            fault = f"{twice} batches were learned twice"
        left = [path.name for path in self.out.rglob("*.part")]
        return Trial(felt, twice, fault or (f"left behind: {left}" if left else ""))

    def _run(self, words: Sequence[str], *, fails_at: int = 0, kill_after: float | None = None) -> int:
        """The exit code of a forked child that runs this command, or of several; -9 where they were killed."""
        sys.stdout.flush()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (self.folder / "told").write_bytes(b"")
        children = []
        for rank in range(self.processes):
            children.append(os.fork())
            if not children[-1]:
                if self.processes > 1:
                    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.processes)}
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                os._exit(self._child(words, fails_at, is_first=rank == 0))
        if kill_after is not None:
            time.sleep(kill_after)
            end(children, signal.SIGKILL)
        codes = wait_for(children)
        self.told = (self.folder / "told").read_text(errors="replace")
        return max(codes, key=abs)

    def _child(self, words: Sequence[str], fails_at: int, *, is_first: bool) -> int:
        told = os.open(self.folder / "told", os.O_WRONLY | os.O_APPEND)
        os.dup2(told, 1)
        os.dup2(told, 2)
        if is_first:
            _note_batches(self.counter)
        faults = ctypes.CDLL(os.environ[PRELOADED])
        faults.faults_arm(str(self.out).encode(), ctypes.c_long(fails_at))
        from emdistill.cli import main as emdistill

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored
        try:
            code = emdistill(list(words))
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 70
        if is_first:
            self.count.write_text(str(faults.faults_count()))
        sys.stdout.flush()
        sys.stderr.flush()
        return code

    def _words(self, command: str) -> list[str]:
        words = command.format(place=self.folder, out=self.out).split()
        share = ["--training.per_device_train_batch_size", str(8 // self.processes)]  # of the 8 rows of a step
        return words + share * (self.processes > 1)

    def _clear(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        for leftover in (*self.folder.glob(".out-*"), *self.folder.glob("out.*")):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self.counter.write_bytes(b"")
        if self.before.exists():
            shutil.copytree(self.before, self.out)

    def _batches(self) -> int:
        return self.counter.stat().st_size

    def _files(self) -> dict[str, bytes]:
        paths = [path for pattern in self.case.outcome for path in self.out.glob(pattern)]
        return {str(path.relative_to(self.out)): path.read_bytes() for path in paths}

    def _prepare(self) -> None:
        """A tiny encoder, a teacher fine-tuned from it, rows and a text; a run where one is exported."""
        from conftest import make_encoder, make_tokenizer

        from emdistill.cli import load

        for verb in ("finetune", self.case.words.split()[0]):  # imported once, for all children
            load(verb)
        make_encoder("bert", layers=4, width=16, heads=2, seed=1).save_pretrained(self.folder / "encoder")
        make_tokenizer().save_pretrained(self.folder / "encoder")
        nouns, fillers = ("the movie", "a book", "it", "the book of it"), ("", "very ", "not in a ", "and ")
        rows = [
            f"{nouns[row // 2 % 4]} was {fillers[row // 8 % 4]}{('bad', 'good')[row % 2]},{('bad', 'good')[row % 2]}"
            for row in range(48)
        ]
        (self.folder / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
        paragraph = "the movie was good and it was not bad and the book of it is very good. " * 4
        (self.folder / "text.txt").write_text((paragraph + "\n\n") * 10)
        fine = "finetune --model {place}/encoder --data {place}/reviews.csv --output {place}/teacher "
        fine += "--training.num_train_epochs 8 --training.learning_rate 5e-3 --training.disable_tqdm"
        assert self._run(self._words(fine)) == 0, self.told
        if "{place}/run" in self.case.words:
            run = DISTILL.replace("{out}", "{place}/run") + " --method soft-targets --training.num_train_epochs 1"
            assert self._run(self._words(run)) == 0, self.told


def wait_for(children: Sequence[int]) -> list[int]:
    """The exit code of each child. Where one fails, the others are ended, as torchrun ends them."""
    codes: dict[int, int] = {}
    killed_at = math.inf
    while len(codes) < len(children):
        running = [child for child in children if child not in codes]
        for child in running:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
        if any(codes.values()) and killed_at == math.inf:
            end(set(running) - set(codes), signal.SIGTERM)
            killed_at = time.monotonic() + GRACE
        if time.monotonic() > killed_at:  # who waits for the others to connect does not hear SIGTERM
            end(set(running) - set(codes), signal.SIGKILL)
        time.sleep(0.01)
    return [codes[child] for child in children]


def end(children: Iterable[int], by: signal.Signals) -> None:
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, by)


def difference(name: str, expected: bytes | None, there: bytes | None) -> str:
    """Where a file differs from that of the undisturbed run: its first other line, of how many."""
    if expected is None or there is None:
        return f"{name} is {'missing' if there is None else 'one too many'}"
    pairs = list(itertools.zip_longest(expected.splitlines(True), there.splitlines(True), fillvalue=b"no line"))
    number, (before, now) = next((n, pair) for n, pair in enumerate(pairs, start=1) if pair[0] != pair[1])
    return f"{name}, line {number} of {len(pairs)}: {now[:200]!r} instead of {before[:200]!r}"


def _note_batches(counter: Path) -> None:
    """A byte per batch that is learned from, in a file that outlives the process."""
    from emdistill.training.trainer import StudentWithObjective

    forward, file = StudentWithObjective.forward, os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def noted(self: Any, *args: Any, **options: Any) -> Any:
        os.write(file, b".")
        return forward(self, *args, **options)

    StudentWithObjective.forward = noted  # type: ignore[method-assign]


def _again_with_faults(argv: Sequence[str]) -> None:
    """Start anew with faults.c preloaded, one thread, and no hub."""
    library = Path(tempfile.mkdtemp(prefix="faults-")) / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    paths = [str(HERE.parent), str(HERE.parent / "tests"), *sys.path]
    environment = {
        PRELOADED: str(library), "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, __file__, *argv], env=os.environ | environment, check=False)
    shutil.rmtree(library.parent)
    sys.exit(done.returncode)


def _say(options: argparse.Namespace, done: Mapping[Any, Trial]) -> None:
    faults = [trial for trial in done.values() if trial.fault]
    felt = [trial for trial in done.values() if trial.felt]
    twice = max((trial.twice for trial in done.values()), default=0)
    print(
        f"{options.case}, {options.what}: {len(done)} trials, {len(felt)} felt, {len(faults)} with a fault; "
        f"at most {twice} batches learned twice, {CASES[options.case].interval} allowed"
    )
    if options.output:
        figures = {"case": options.case, "what": options.what, "trials": len(done), "felt": len(felt),
                   "faults": len(faults), "most batches twice": twice, "processes": options.processes}  # fmt: skip
        with options.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")
    sys.exit(bool(faults))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("writes", "kills"))
    parser.add_argument("--case", choices=CASES, default="steps")
    parser.add_argument("--moments", type=int, default=50, help="how often a run is killed")
    parser.add_argument("--first", type=int, default=1, help="the first write that fails")
    parser.add_argument("--last", type=int, help="the last one; all if not given")
    parser.add_argument("--every", type=int, default=1, help="leave out all but one of so many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--processes", type=int, default=1, help="that do the training together")
    parser.add_argument("--output", type=Path, metavar="FILE.jsonl", help="add the figures, a line")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
