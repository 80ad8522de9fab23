"""A command in several processes of one training, as torchrun starts them, but forked: imports are paid once."""

import os
import socket
import subprocess
import sys
from pathlib import Path

FORKED = '''
import os
import sys

from emdistill.cli import load, main

def stop_at(step):
    """As if this process had got a Ctrl-C in that step."""
    from emdistill.training.run_stages import StopOnRequest

    on_step_end = StopOnRequest.on_step_end

    def asked(self, args, state, control, **options):
        self.requested |= state.global_step == step
        return on_step_end(self, args, state, control, **options)

    StopOnRequest.on_step_end = asked


load("distill")  # what it imports is imported once, before there are several
out, *words = sys.argv[1:]
count = int(os.environ["WORLD_SIZE"])
for rank in map(str, range(count)):
    if not os.fork():
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{out}/{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        if rank == "1" and os.environ.get("STOP_AT"):
            stop_at(int(os.environ["STOP_AT"]))
        code = main(words)
        sys.stdout.flush()
        os._exit(code)
sys.exit(max(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(count)))
'''


def run_in_processes(
    count: int, words: list[str], told: Path, stop_at: int | None = None
) -> tuple[int, dict[str, str]]:
    """The exit code of `emdistill WORDS`, and what each process has said: "0.out", "0.err", "1.out", …

    told     a folder for the latter
    stop_at  the step in which the second process is asked to stop
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    environment |= {"STOP_AT": str(stop_at or "")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FORKED, str(told), *words]
    done = subprocess.run(command, env=os.environ | environment, timeout=300, check=False)
    return done.returncode, {path.name: path.read_text() for path in (*told.glob("*.out"), *told.glob("*.err"))}
