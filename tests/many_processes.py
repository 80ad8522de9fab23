"""A command in several processes of one training, as torchrun starts them, but forked: imports are paid once."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FORKING = '''
import json
import os
import resource
import signal
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
for line in sys.stdin:
    order = json.loads(line)
    children, codes = set(), []
    for rank in map(str, range(order["count"])):
        child = os.fork()
        children.add(child)
        if not child:
            signal.alarm(240)  # one that waits for another in vain
            os.environ |= order["environment"] | {"RANK": rank, "LOCAL_RANK": rank}
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{order['told']}/{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            if rank == "1" and order["stop_at"]:
                stop_at(order["stop_at"])
            if rank == "0" and order["longest"]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (order["longest"], order["longest"]))
            code = main(order["words"])
            sys.stdout.flush()
            os._exit(code)
    while children:
        child, status = os.wait()
        children.remove(child)
        codes.append(os.waitstatus_to_exitcode(status))
        for other in children if codes[-1] else ():  # as torchrun does
            os.kill(other, signal.SIGTERM)
    print(next(filter(None, codes), 0), flush=True)
'''

RunInProcesses = Callable[..., tuple[int, dict[str, str]]]


@contextmanager
def forking() -> Iterator[RunInProcesses]:
    """run(count, words, told): `emdistill WORDS` in so many processes: the first failure's exit code, and all words.

    Where one has failed, the others get a SIGTERM.

    told     a folder for what each process says; returned by file: "0.out", "0.err", "1.out", …
    stop_at  the step in which the second process is asked to stop
    longest  bytes of a file that the first process can write
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FORKING]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as parent:  # type: ignore[call-overload]

        def run(
            count: int, words: list[str], told: Path, *, stop_at: int | None = None, longest: int | None = None
        ) -> tuple[int, dict[str, str]]:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            environment |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
            order = {"count": count, "words": words, "told": str(told), "environment": environment}
            order |= {"stop_at": stop_at, "longest": longest}
            print(json.dumps(order), file=parent.stdin, flush=True)
            code = int(parent.stdout.readline())
            return code, {path.name: path.read_text() for path in (*told.glob("*.out"), *told.glob("*.err"))}

        yield run
