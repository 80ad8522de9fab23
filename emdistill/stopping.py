"""What asks a command to stop: Ctrl-C, SIGTERM, and what warns of an end that is near.

SLURM and other batch systems send SIGUSR1, SIGUSR2 or SIGXCPU a while before they end a job; a terminal that is closed
sends SIGHUP.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CTRL_C = signal.SIGINT
# Those that this system has.
WARNINGS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name)
)
_listeners: list[Callable[[int], None]] = []


@contextmanager
def stop_requests(heard: Callable[[int], None], *, ctrl_c: bool = False) -> Iterator[None]:
    """While open, `heard` is called with each warning (and Ctrl-C, if that is asked for), and no outer one is.

    What is ignored, as SIGHUP under nohup, stays so, and so does a warning that the calling program meets by itself.
    """
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield
        return
    taken = [number for number in WARNINGS if signal.getsignal(number) == signal.SIG_DFL]
    _listeners.append(heard)
    try:
        with _handled(_on_signal, [*taken, CTRL_C] if ctrl_c else taken):
            yield
    finally:  # once no handler of this one is left to ask it
        _listeners.pop()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While open, what asks to stop ends the process: it waits within C++, where Python would not hear of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = (_on_signal, signal.default_int_handler)
    with _handled(signal.SIG_DFL, [number for number in (CTRL_C, *WARNINGS) if signal.getsignal(number) in ours]):
        yield


def _on_signal(number: int, frame: FrameType | None) -> None:
    _listeners[-1](number)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None] | signal.Handlers, numbers: list[int]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
