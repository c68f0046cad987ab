"""Processes that begin with the library and what it uses imported: forks of a server, in 0.1 s instead of 5 s.

For tests that stop or kill a process. How an interpreter starts, and what it imports in which order, is tested with
interpreters of their own.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types

#: What the commands and recipes of these tests import; a test that needs more takes longer, and passes.
MODULES = (
    "longvale.annotation.pipeline", "longvale.annotation.review.figures", "longvale.cli", "longvale.demo.tuning",
    "longvale.evaluation.evaluate", "longvale.extraction.extract", "longvale.models.processing_longvale",
    "longvale.training.stages",
)  # fmt: skip
#: What they import from packages of extras and while they run.
PACKAGES = ("matplotlib.figure", "matplotlib.backends.backend_agg", "scenedetect", "silero_vad")


class Process:
    """A running process, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, status, stdout):
        self.stdout, self.returncode, self._status = stdout, None, status
        self.pid = int(status.readline())

    def poll(self):
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._status.readline()))
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.poll()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)


class Server:
    """Starts processes as `python ARGUMENTS` would, with `-c CODE`, `-m MODULE` or a path first."""

    def __enter__(self):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._process = subprocess.Popen(
            command,
            env=os.environ | {"TRANSFORMERS_VERBOSITY": "error"},  # as the commands set it before they import it
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # Python's `sys.stdout` of a file could not become one of a pipe
            stderr=subprocess.PIPE,
        )
        theirs.close()
        if self._socket.recv(16) != b"ready":
            raise RuntimeError(self._process.communicate()[1].decode())
        return self

    def __exit__(self, *error):
        self._socket.close()
        self._process.communicate()

    def start(self, *arguments, stdout=None, stderr=None, env=None, new_session=False, teardown=True):
        """Start a process -> [`Process`].

        Without the file `stdout`, its output is read from `process.stdout`; without `stderr`, errors go there too.
        Variables that a library reads when it is imported, such as HF_HUB_OFFLINE, are those of this process.
        Without `teardown` the process ends after its exit handlers, before Python takes all modules apart, which
        copies what the fork shares with the server: seconds.
        """
        job = {
            "arguments": list(map(str, arguments)),
            "environment": dict(os.environ if env is None else env),
            "folder": os.getcwd(),
            "new_session": new_session,
            "teardown": teardown,
        }
        status, report = os.pipe()
        output, written = (None, os.dup(stdout.fileno())) if stdout else os.pipe()
        files = [written, stderr.fileno() if stderr else written, report]
        socket.send_fds(self._socket, [json.dumps(job).encode()], files)
        os.close(report)
        os.close(written)
        return Process(open(status, "rb", buffering=0), output and open(output, "rb", buffering=0))

    def run(self, *arguments, env=None):
        """Run a process to its end -> `subprocess.CompletedProcess` with its output as text."""
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            code = self.start(*arguments, stdout=stdout, stderr=stderr, env=env, teardown=False).wait()
            for file in (stdout, stderr):
                file.seek(0)
            return subprocess.CompletedProcess(arguments, code, stdout.read(), stderr.read())


def _serve(handle):
    """Fork a process for each job -> the job, in that process; its parent waits for it and reports pid and status."""
    with socket.socket(fileno=handle) as connection:
        assert threading.active_count() == 1, "a module starts a thread, which a fork does not have"
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        connection.send(b"ready")
        while True:
            message, files, *_ = socket.recv_fds(connection, 2**20, 3)
            if not message:
                os._exit(0)
            if os.fork():
                for file in files:
                    os.close(file)
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
                continue
            if pid := os.fork():
                os.write(files[2], f"{pid}\n".encode())
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(BrokenPipeError):  # nobody waits for it
                    os.write(files[2], f"{status}\n".encode())
                os._exit(0)
            return json.loads(message), files


def _become(job, files):
    """Take over the job's files, environment and folder, and run what it names as `__main__`."""
    if job["new_session"]:
        os.setsid()
    for file, number in ((files[0], 1), (files[1], 2)):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    tempfile.tempdir = None
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
    kind, *rest = job["arguments"]
    if kind == "-m":
        sys.argv, sys.path[0] = rest, ""
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__spec__ = None
    if kind == "-c":
        code, *rest = rest
        sys.argv, sys.path[0] = ["-c", *rest], ""
    else:
        with open(kind, encoding="utf-8") as file:
            code = file.read()
        main.__file__ = kind
        sys.argv, sys.path[0] = [kind, *rest], os.path.dirname(kind)
    exec(compile(code, kind, "exec"), main.__dict__)  # noqa: S102  the tests' own


def _end_with_status():
    """End the process, as the last of its exit handlers, if a status was set: it has ended without an error."""
    if _status is not None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, BrokenPipeError):  # closed by the job
                stream.flush()
        os._exit(_status & 0xFF)


if __name__ == "__main__":
    _status = None
    atexit.register(_end_with_status)  # the first that is registered is called last
    for _name in MODULES:
        __import__(_name)
    for _name in PACKAGES:
        with contextlib.suppress(ImportError):
            __import__(_name)
    gc.freeze()  # else the collector of each fork copies all of it
    _job, _files = _serve(int(sys.argv[1]))
    try:
        _become(_job, _files)
        _code = 0
    except SystemExit as _stopped:
        _code = _stopped.code or 0
        if not isinstance(_code, int):
            raise
    if not _job["teardown"]:
        _status = _code
    sys.exit(_code)
