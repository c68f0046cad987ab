"""Handling of Ctrl-C and termination signals: reported at once, and over within seconds in any computation.

Python runs a signal handler when the main thread returns from C, which takes minutes inside a decoder or a large matrix
product, and joins all threads before it exits. Here a thread reads the pipe to which Python's C level writes each
signal. It reports the signal, and ends the process if the main thread has not done so in time. Files are written such
that a kill at any moment damages none, so no finished work is lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, NoReturn

from .locks import may_resume

STOPPING = "longvale: stopping"
STOPPED = "longvale: stopped; what is finished is kept, run the same command again for the rest"
#: For commands that do not resume: they have written nothing, or their output is made again as a whole.
STOPPED_AS_A_WHOLE = "longvale: stopped"

#: Seconds for the main thread to exit cleanly: close files, delete uploads, stop processes.
GRACE_S = 3.0

#: Another signal within this many seconds is the same Ctrl-C: wrappers forward what the terminal has already sent.
_SAME_S = 0.3

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_received: int | None = None
_raised = False
_said = threading.Lock()  # acquired by the first report and never released


def final_message() -> str:
    """Return the final line; it advises to run the command again only if that resumes."""
    return STOPPED if may_resume() else STOPPED_AS_A_WHOLE


def exit_code() -> int | None:
    """Return 128 plus the number of the received signal, as shells report it; None if there was none."""
    return None if _received is None else 128 + _received


@contextmanager
def prompt_exit() -> Iterator[None]:
    """End the process within [`GRACE_S`] seconds of SIGINT, SIGTERM or SIGHUP in this block, and at once on another.

    The first raises KeyboardInterrupt in the main thread. However the block is then left, the process ends with
    [`exit_code`], without waiting for its threads and without leaving child processes behind. Signals that the process
    was started to ignore (by `nohup`, or as a background job of a script) stay ignored. Use it once, in the main
    thread.
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
    """Interrupt the main thread on the first signal only: another one must not interrupt the shutdown itself."""
    global _raised, _received
    _received = _received or number
    _say_stopping()
    if not _raised:
        _raised = True
        raise KeyboardInterrupt


def _watch(reader: socket.socket) -> None:
    """Report the first signal; end the process on the second one, or when the grace period is over."""
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
    _write(final_message())
    _end()


def _say_stopping() -> None:
    """Report the signal once, from the thread or the handler, whichever is first."""
    if _said.acquire(blocking=False):
        _write(STOPPING)


def _write(line: str) -> None:
    """Write to stderr without its buffer, which the main thread may lock; start a new line after progress bars."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())


def _end() -> NoReturn:
    """End without Python's normal exit, in which threads that are in C code would abort the process."""
    end_children(os.getpid())
    os._exit(exit_code())


def end_children(pid: int) -> None:
    """Kill the processes that a process has started, and their descendants.

    Args:
        pid: id of the process, which is not killed. The tracker of Python's `multiprocessing` is not killed either: it
            ends by itself, after it has removed what the others have left in shared memory.
    """
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                # A filter of its warnings, which multiprocessing gives to all that it starts, has the name only.
                if "multiprocessing.resource_tracker" not in " ".join(process.cmdline()):
                    process.kill()


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes in this block with Ctrl-C blocked, which a terminal sends to all; this process ends them.

    If a process ignored the signal only once it runs, the signal could still interrupt its imports, with a traceback
    for each process.
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


class Stopped(Exception):
    """Raised when a computation was asked to stop."""


@contextmanager
def stoppable(model: Any, wanted: Callable[[], bool]) -> Iterator[None]:
    """Make this thread's forward passes of a model stoppable between layers.

    One forward pass of a long prompt takes minutes on a slow machine, and generation checks its stopping criteria only
    afterwards. The results do not change.

    Args:
        model: any module with its layers in a `ModuleList`, towers included.
        wanted: called before each layer; True stops the work.

    Raises:
        Stopped: inside the block, before the next layer.

    Example:
        >>> import torch
        >>> model = torch.nn.Module()
        >>> model.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
        >>> with stoppable(model, lambda: True):
        ...     model.layers[0](torch.zeros(1, 2))
        Traceback (most recent call last):
        longvale.system.interruption.Stopped
    """
    from torch.nn import ModuleList

    thread = threading.get_ident()

    def look(*_: Any) -> None:
        if threading.get_ident() == thread and wanted():
            raise Stopped

    layers = {layer for group in model.modules() if isinstance(group, ModuleList) for layer in group}
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def wait_for_end() -> None:
    """Wait for Ctrl-C or SIGTERM, then return, so that files are deleted."""
    ended = threading.Event()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # the command line has its own handler
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        while not ended.wait(3600):
            pass
    except KeyboardInterrupt:
        pass


def _forget() -> None:
    """Reset the handlers in a forked process: signals to it are not signals to its parent."""
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
