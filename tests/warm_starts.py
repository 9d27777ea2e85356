"""Our programs as processes that begin where Python has imported them.

A run of the tests starts about a thousand processes of `flagpost` and `flagpost-gateway`; each would import for half
a second what all of them import. Here a server, one for each process of the tests, imports everything once, and
forks a process for each command. It has the command's arguments, environment, standard streams, signals and exit
code, and unlike others no end of its interpreter. What measures memory or a start, or is about a program that is
still importing, uses `subprocess`.

In: a command. Out: a process with those methods of `subprocess.Popen` that the tests use.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Final, Self, cast

PACKAGES: Final = ("flagpost_consumer", "flagpost_publisher.gateway")
MAIN_OF: Final = {
    "flagpost": "flagpost_consumer.entry",
    "flagpost-gateway": "flagpost_publisher.gateway.command",
}
"""The module whose `main` is run, as the packages' entry points say."""
NUMBER: Final = struct.Struct("=i")
"""What the server writes to a process's own pipe: first its id; once it has ended, its exit code."""
FILES: Final = 5
"""A request's files: the request itself, the three standard streams, and the pipe for those numbers."""
MOST_FILES: Final = 4096
ENVIRON: Final = dict(os.environ)
"""The environment before any test has changed it: what is imported may look at it, as prometheus_client does."""


class WarmProcess:
    """A program that runs, or has run. A context manager, which waits for its end."""

    def __init__(
        self,
        command: Sequence[str | Path],
        environ: Mapping[str, str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
    ) -> None:
        """Start it. A stream is a file's number or `DEVNULL`; stderr may also be `PIPE`."""
        self.args = [str(part) for part in command]
        self.returncode: int | None = None
        self._report, its_report = os.pipe()
        weakref.finalize(self, os.close, self._report)
        self._asking = threading.Lock()
        request = {"command": self.args, "environ": dict(environ), "folder": str(Path.cwd())}
        with contextlib.ExitStack() as given:
            given.callback(os.close, its_report)
            self.stderr, stderr = _piped(given) if stderr == subprocess.PIPE else (None, stderr)
            nothing = os.open(os.devnull, os.O_RDWR)
            given.callback(os.close, nothing)
            streams = [nothing if each == subprocess.DEVNULL else each for each in (stdin, stdout, stderr)]
            with tempfile.TemporaryFile() as asked:
                asked.write(json.dumps(request).encode())
                asked.seek(0)
                _server().send([asked.fileno(), *streams, its_report])
                self.pid = self._number()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.stderr is not None:
            self.stderr.close()
        self.wait()

    def poll(self) -> int | None:
        """Its exit code, or the number of the signal that ended it, negative; None while it runs."""
        return self._code_within(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        code = self._code_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, if it still runs."""
        self.send_signal(signal.SIGKILL)

    def _code_within(self, seconds: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._report, selectors.EVENT_READ)
                has_ended = selector.select(seconds)
            with self._asking:
                if has_ended and self.returncode is None:
                    self.returncode = self._number()
        return self.returncode

    def _number(self) -> int:
        told = os.read(self._report, NUMBER.size)
        if not told:
            raise RuntimeError(f"the server of tests/warm_starts.py has ended; {self.args} is on its own")
        return int(NUMBER.unpack(told)[0])


def run(
    command: Sequence[str | Path], environ: Mapping[str, str], seconds: float, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with `given` on its stdin. Raises subprocess.TimeoutExpired, after killing it."""
    with (
        tempfile.TemporaryFile("w+") as stdin,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        stdin.write(given)
        stdin.seek(0)
        streams = {"stdin": stdin.fileno(), "stdout": out.fileno(), "stderr": err.fileno()}
        with WarmProcess(command, environ, **streams) as process:
            try:
                code = process.wait(seconds)
            except BaseException:
                process.kill()
                raise
        for written in (out, err):
            written.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read().decode(), err.read().decode())


def _piped(given: contextlib.ExitStack) -> tuple[IO[bytes] | None, int]:
    """Our end of a new pipe, and the number of the program's end, which `given` closes."""
    ours, its = os.pipe()
    given.callback(os.close, its)
    return os.fdopen(ours, "rb"), its


class Server:
    """The process that forks, as those see it that send it requests."""

    def __init__(self) -> None:
        self._channel, its_channel = socket.socketpair()
        self._sending = threading.Lock()
        with its_channel:
            number = its_channel.fileno()
            command = [sys.executable, __file__, str(number)]
            self._process = subprocess.Popen(
                command, env=ENVIRON, pass_fds=[number], stdin=subprocess.DEVNULL
            )
        atexit.register(self.stop)

    def send(self, files: Sequence[int]) -> None:
        with self._sending:
            socket.send_fds(self._channel, [b"."], files)

    def stop(self) -> None:
        """End it; what it has forked goes on."""
        self._channel.close()
        self._process.wait()


_making = threading.Lock()


def _server() -> Server:
    with _making:
        return _made()


@cache
def _made() -> Server:
    return Server()


# The server


def _serve(channel: socket.socket) -> Sequence[int] | None:
    """Fork for each request. Returns in each child the request's files, and in the server, at its end, None."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it is heard
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the tests that end it
    signal.set_wakeup_fd(wake)
    reports: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        for heard in (channel.fileno(), woken):
            selector.register(heard, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if woken in ready:
                os.read(woken, 512)
                _report_ended(reports)
            if channel.fileno() in ready:
                message, files, _, _ = socket.recv_fds(channel, 1, FILES)
                if not message:
                    return None
                process_id = os.fork()
                if not process_id:
                    return files
                *_, report = files
                for number in files[:-1]:
                    os.close(number)
                os.write(report, NUMBER.pack(process_id))
                reports[process_id] = report


def _report_ended(reports: dict[int, int]) -> None:
    """Tell whose process has ended."""
    for process_id in list(reports):
        ended, status = os.waitpid(process_id, os.WNOHANG)
        if ended:
            report = reports.pop(process_id)
            with contextlib.suppress(BrokenPipeError):  # nobody asks any more
                os.write(report, NUMBER.pack(os.waitstatus_to_exitcode(status)))
            os.close(report)


def _prepared(files: Sequence[int]) -> Callable[[], None]:
    """Make a forked process what its request says; returns what it must run."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked, *streams, _ = files
    with open(asked, "rb", closefd=False) as file:
        request = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(len(streams), MOST_FILES)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    sys.argv = request["command"]
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - until the process ends, as the next two
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    module = importlib.import_module(MAIN_OF[Path(sys.argv[0]).name])
    return cast("Callable[[], None]", module.main)


def _run(main: Callable[[], None]) -> int:
    """Run a program as its entry point does; returns its exit code."""
    try:
        main()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        sys.stderr.write(f"{ended.code}\n")
        return 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _end(code: int) -> None:
    """End a process as Python does, but do not take the interpreter to pieces: that takes a third of a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _import_all() -> None:
    for name in PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


if __name__ == "__main__":
    _import_all()
    gc.collect()
    gc.freeze()  # the collector of a fork would write to all of it, and so copy it
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        request_files = _serve(connection)
    if request_files is not None:
        _end(_run(_prepared(request_files)))
