"""supervisord as a child process: how it is started, told and heard.

It keeps processes alive, pauses between restarts, rotates logs and stops in order. What
happens is read from its log; groups are started by its XML-RPC. All that knows its words is
here.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from deploy.folder import Folder
from deploy.programs import Program, supervisor_conf
from deploy.servers import leashed


@dataclass(frozen=True)
class Spawned:
    """A program was started as process `pid`."""

    name: str
    pid: int


@dataclass(frozen=True)
class Died:
    """A program ended by itself; it is started again after `pause_s`."""

    name: str
    reason: str
    pause_s: int


@dataclass(frozen=True)
class Killed:
    """A program did not stop in its time."""

    name: str


@dataclass(frozen=True)
class Ended:
    """supervisord itself is gone."""


Event = Spawned | Died | Killed | Ended

_SPAWNED = re.compile(r"spawned: '(\S+)' with pid (\d+)")
_EXITED = re.compile(r"exited: (\S+) \((.*); (?:not )?expected\)")
_SETTLED = re.compile(r"success: (\S+) entered RUNNING state")
_KILLING = re.compile(r"killing '(\S+)' \(\d+\) with SIGKILL")


class EventReader:
    """Makes events of supervisord's log lines.

    supervisord pauses for as many seconds as a program has died young in a row
    (`process.py`, `finish` and `transition`, 4.3); "success" ends the row.
    """

    def __init__(self) -> None:
        self._settled: dict[str, bool] = {}
        self._young_deaths: dict[str, int] = {}

    def read(self, line: str) -> Event | None:
        """The event that a line tells of, if any."""
        if match := _SPAWNED.search(line):
            self._settled[match[1]] = False
            return Spawned(match[1], int(match[2]))
        if match := _SETTLED.search(line):
            self._settled[match[1]] = True
            self._young_deaths[match[1]] = 0
        elif match := _EXITED.search(line):
            name = match[1]
            if not self._settled.get(name):
                self._young_deaths[name] = self._young_deaths.get(name, 0) + 1
            return Died(name, match[2], self._young_deaths.get(name, 0))
        elif match := _KILLING.search(line):
            return Killed(match[1])
        return None


class Supervisord:
    """Runs from construction until `stop`; ends by itself, in order, if this thread ends."""

    def __init__(self, folder: Folder, programs: list[Program], lock: int) -> None:
        self._orphans_stop_s = max(program.stop_s for program in programs)
        self._pids: dict[str, int] = {}
        self._reader = EventReader()
        # Not in the folder: the path of a Unix socket has 107 characters at most.
        self._socket_dir = Path(tempfile.mkdtemp(prefix="agent-orchestrator-"))
        socket = self._socket_dir / "supervisor.sock"
        conf = folder.path / "supervisord.conf"
        conf.write_text(supervisor_conf(folder, socket, programs))
        # Its log is a file, not a pipe to here: it must go on when the launcher is killed.
        log = folder.log("supervisord")
        if log.exists():
            log.replace(f"{log}.1")
        with log.open("ab") as output:
            # It inherits the lock: when the launcher is killed, the folder is free only once
            # everything that uses it has ended.
            self._child = subprocess.Popen(
                leashed([sys.executable, "-m", "supervisor.supervisord", "-c", str(conf)]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[lock],
                # Ctrl-C is for the launcher, which then stops this.
                start_new_session=True,
            )
        self._log = log.open()
        self._line = ""
        self._rpc = xmlrpc.client.ServerProxy(
            "http://localhost", transport=SupervisorTransport(serverurl=f"unix://{socket}")
        )

    def next_event(self, within_s: float) -> Event | None:
        """What happened next; None if nothing did in that time. `Ended` is the last."""
        deadline = time.monotonic() + within_s
        while True:
            # Looked at before the log, so that its last lines are not missed.
            ended = self._child.poll() is not None
            while piece := self._log.readline():
                self._line += piece
                if not self._line.endswith("\n"):
                    break
                line, self._line = self._line, ""
                event = self._reader.read(line)
                if isinstance(event, Spawned):
                    self._pids[event.name] = event.pid
                if event:
                    return event
            if ended:
                return Ended()
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.05)

    def start_group(self, group: str) -> None:
        """Start the programs of a group, without waiting for them."""
        self._rpc.supervisor.startProcessGroup(group, False)

    def terminate(self) -> None:
        """Begin to stop: the groups one after the other; `Ended` follows."""
        self._child.terminate()

    def close(self) -> None:
        """Make sure that nothing of it is left, whatever it did last."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        if self._child.returncode != 0:
            # It did not stop its children, but they were sent SIGTERM as it died.
            deadline = time.monotonic() + self._orphans_stop_s
            while any(_is_group(pid) for pid in self._pids.values()):
                if time.monotonic() > deadline:
                    for pid in filter(_is_group, self._pids.values()):
                        os.killpg(pid, signal.SIGKILL)
                    break
                time.sleep(0.1)
        self._log.close()
        shutil.rmtree(self._socket_dir, ignore_errors=True)


def _is_group(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
