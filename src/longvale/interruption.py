"""Ctrl-C, and the end that a system asks for: reported at once and over within seconds, whatever the process computes.

Python runs the handler of a signal when the main thread returns from C, which takes minutes inside a decoder or a large
matrix product, and joins all threads before it ends. A thread reads the pipe that Python's C level writes each signal
into: it reports the signal, and ends the process if the main thread has not done so in time. Files are written such
that a kill at any moment damages none, so this end loses nothing that is finished.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import NoReturn

from .locks import may_resume

STOPPING = "longvale: stopping"
STOPPED = "longvale: stopped; what is finished is kept, run the same command again for the rest"
#: Of commands that do not resume: they have written nothing, or what they write is made again as a whole.
STOPPED_AS_A_WHOLE = "longvale: stopped"

#: Seconds that the main thread has to leave in order: close files, delete uploads, stop processes.
GRACE_S = 3.0

#: A second signal within so many seconds is the same Ctrl-C: wrappers pass on what the terminal has sent already.
_SAME_S = 0.3

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_received: int | None = None
_raised = False
_said = threading.Lock()  # held from the first report on


def last_words() -> str:
    """The line to end with: it advises to run the command again only where that resumes."""
    return STOPPED if may_resume() else STOPPED_AS_A_WHOLE


def exit_code() -> int | None:
    """128 and the number of the signal that has asked for the end, as shells report it; None if none has."""
    return None if _received is None else 128 + _received


@contextmanager
def prompt_end() -> Iterator[None]:
    """End the process within [`GRACE_S`] seconds of SIGINT, SIGTERM or SIGHUP in this block, and at once of a second.

    The first raises KeyboardInterrupt in the main thread. However the block is left then, the process ends with
    [`exit_code`], without waiting for its threads and without leaving child processes behind. Signals that the process
    was started to ignore (by `nohup`, or as a background job of a script) stay ignored. For the main thread, once.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        if _received is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            _end()


def _interrupt(number: int, frame: object) -> None:
    """Interrupt the main thread by the first signal only: a second one must not interrupt the end itself."""
    global _raised, _received
    _received = _received or number
    _say_stopping()
    if not _raised:
        _raised = True
        raise KeyboardInterrupt


def _watch(reader: socket.socket) -> None:
    """Report the first signal; end the process with the second one, or when the time is over."""
    global _received
    first: float | None = None
    while True:
        reader.settimeout(None if first is None else max(0.001, first + GRACE_S - time.monotonic()))
        try:
            numbers = [number for number in reader.recv(64) if number in _SIGNALS]
        except TimeoutError:
            break
        if numbers and first is None:
            first, _received = time.monotonic(), _received or numbers[0]
            _say_stopping()
        elif numbers and time.monotonic() > first + _SAME_S:
            break
    _write(last_words())
    _end()


def _say_stopping() -> None:
    """Report the signal, once: the thread or the handler, whichever comes first."""
    if _said.acquire(blocking=False):
        _write(STOPPING)


def _write(line: str) -> None:
    """Write to stderr past its buffer, which the main thread may hold; progress bars have left the cursor in a line."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())


def _end() -> NoReturn:
    """End as a kill does: in the order in which Python ends, threads that are in C code would abort the process."""
    end_children(os.getpid())
    os._exit(exit_code())


def end_children(pid: int) -> None:
    """Kill the processes that a process has started, and theirs.

    Args:
        pid: id of the process, which stays. The tracker of Python's `multiprocessing` stays too: it ends by itself,
            after it has removed what the others have left in shared memory.
    """
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "resource_tracker" not in " ".join(process.cmdline()):
                    process.kill()


@contextmanager
def unheard() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C, which a terminal sends to all: this process ends them.

    A process that ignores the signal once it runs leaves the seconds of its imports, and a traceback of each process
    that is interrupted in them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it, as multiprocessing does, unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forget() -> None:
    """In a forked process: signals to it are not signals to us."""
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
