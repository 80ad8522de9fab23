"""One process at a time: a lock beside a file that several runs may want to write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def one_at_a_time(path: Path, writing: str) -> Iterator[None]:
    """Hold the lock `path`; who has to wait is told that another run is writing `writing`.

    The lock of a run that was killed is free again.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another run is writing {writing}; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
