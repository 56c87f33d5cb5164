"""Processes under test: started, broken by signals, and started again as a supervisor would."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.servers import leashed

# As supervisors do, so that one that ends at once does not take the machine with it.
RESTART_AFTER_S = 1.0


@dataclass(frozen=True)
class Program:
    """A Python module to run, with its arguments and what is added to its environment."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass
class Life:
    """The present process of a program, and when to start the next one."""

    process: subprocess.Popen[bytes]
    due_at: float | None = None


class Supervisor:
    """Keeps programs alive. For one thread: they end with the one that started them."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._programs: dict[str, Program] = {}
        self._lives: dict[str, Life] = {}
        self._groups: set[int] = set()
        self._killed: set[int] = set()
        self.restarts: Counter[str] = Counter()
        # Programs that ended without being killed by us, with their status.
        self.exits: list[tuple[str, int]] = []

    def start(self, program: Program) -> None:
        """Start a program, and keep it alive from now on."""
        self._programs[program.name] = program
        self._lives[program.name] = Life(self._spawn(program))

    def tick(self) -> None:
        """Start again what has ended; called several times a second."""
        for name, life in self._lives.items():
            status = life.process.poll()
            if status is None:
                continue
            now = time.monotonic()
            if life.due_at is None:
                life.due_at = now + RESTART_AFTER_S
                if life.process.pid not in self._killed:
                    self.exits.append((name, status))
            elif now >= life.due_at:
                self.restarts[name] += 1
                self._lives[name] = Life(self._spawn(self._programs[name]))

    def kill(self, name: str) -> None:
        """SIGKILL of the process, and not of its children."""
        process = self._lives[name].process
        self._killed.add(process.pid)
        os.kill(process.pid, signal.SIGKILL)

    def kill_group(self, name: str) -> None:
        """SIGKILL of the process and its children at once."""
        process = self._lives[name].process
        self._killed.add(process.pid)
        os.killpg(process.pid, signal.SIGKILL)

    def kill_child(self, name: str, draw: float) -> None:
        """SIGKILL of one of its children, of which there must be one."""
        children = self._children(name)
        children[int(draw * len(children))].kill()

    def has_children(self, name: str) -> bool:
        """Whether there is one to be killed."""
        return bool(self._children(name))

    def freeze(self, name: str) -> int:
        """SIGSTOP of the process and its children; returns what `thaw` needs."""
        pid = self._lives[name].process.pid
        os.killpg(pid, signal.SIGSTOP)
        return pid

    def thaw(self, pid: int) -> None:
        """SIGCONT, if it is still there."""
        try:
            os.killpg(pid, signal.SIGCONT)
        except ProcessLookupError:
            return  # something else ended it, which is another's subject

    def alive(self, name: str) -> bool:
        """Whether it runs now."""
        return self._lives[name].process.poll() is None

    def ended(self) -> list[str]:
        """Programs whose process is not there."""
        return [name for name in self._lives if not self.alive(name)]

    def rss_mb(self) -> dict[str, float]:
        """Resident memory of each process: a program's, and those of its children."""
        sizes = {}
        for name, life in self._lives.items():
            children = sorted(self._children(name), key=lambda child: child.pid)
            for n, process in enumerate([psutil.Process(life.process.pid), *children]):
                label = f"{name}, child {n}" if n else name
                sizes[label] = process.memory_info().rss / 2**20
        return sizes

    def orphans(self) -> list[str]:
        """Processes that outlived the one that was to look after them."""
        present = {life.process.pid for life in self._lives.values()}
        gone = self._groups - present
        left = []
        for process in psutil.process_iter(["pid", "cmdline", "status"]):
            try:
                zombie = process.info["status"] == psutil.STATUS_ZOMBIE
                if os.getpgid(process.pid) in gone and not zombie:
                    left.append(f"{process.pid} {' '.join(process.info['cmdline'] or [])}")
            except ProcessLookupError:
                continue
        return left

    def close(self) -> None:
        """SIGKILL of everything that was ever started here."""
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for life in self._lives.values():
            life.process.wait()

    def _children(self, name: str) -> list[psutil.Process]:
        try:
            return psutil.Process(self._lives[name].process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        with (self._directory / f"{program.name}.log").open("ab") as log:
            process = subprocess.Popen(
                leashed([sys.executable, "-m", *program.command]),
                cwd=self._directory,
                env=os.environ | dict(self._environment) | dict(program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._groups.add(process.pid)
        return process
