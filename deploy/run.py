"""`make run`: the whole system on one machine, in the foreground, until Ctrl-C.

Checks first, so that what cannot work is one line before anything starts. Then the servers,
`orchestrator init`, and everything else at once. Only this file prints.

| variable | default | is |
| --- | --- | --- |
| DATA_DIR | .data | data, logs and secrets; locked while the stack runs |
| REDIS_URL, MONGODB_URI | embedded servers | servers of your own instead |
| REDIS_PORT, MONGODB_PORT | 6379, 27017 | of the embedded servers |
| FLOWER_PORT | 5555 | Flower, on loopback |

HOST, PORT and all other settings are those of `orchestrator/settings.py`.
"""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import pymongo
import pymongo.errors
import redis

from deploy.binding import bracketed, refusal
from deploy.folder import Folder, FolderInUse
from deploy.programs import (
    ROOT,
    Ports,
    Program,
    longest_stop_s,
    our_programs,
    roles,
    server_programs,
)
from deploy.servers import LOOPBACK, ServerFailed, mongo_url
from deploy.supervision import Died, Ended, Killed, Spawned, Supervisord
from orchestrator.errors import BadSettings, BrokerUnavailable
from orchestrator.registry import Registry, open_redis
from orchestrator.settings import Settings, is_loopback, load

CHECK_TIMEOUT_S = 1.0
TICK_S = 0.1
SERVERS_READY_S = 60
INIT_S = 60


class Refused(Exception):
    """The stack cannot run; the message is for the user."""


class Interrupted(Exception):
    """The user wants it to end."""


@dataclass
class Life:
    """A program's present process."""

    pid: int
    log_from: int  # where in the program's log its lines begin
    ready: bool = False


@dataclass(frozen=True)
class Plan:
    """All that is known before anything starts."""

    folder: Folder
    settings: Settings
    ports: Ports
    door: str  # where the front door is reached from here
    redis_is_ours: bool
    mongodb_is_ours: bool


def say(name: str, text: str) -> None:
    """One line for one process."""
    print(f"  {name:<13} {text}", flush=True)


def shown(path: Path) -> str:
    """A path as short as it can be typed here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


# Checks before anything starts


def port_of(variable: str, default: int) -> int:
    """A port from the environment.

    Raises:
        Refused: it is not one.
    """
    value = os.environ.get(variable) or str(default)
    if not value.isdecimal() or not 1 <= int(value) <= 65535:
        raise Refused(f"{variable}={value}: must be a port, 1 to 65535")
    return int(value)


def make_plan(folder: Folder) -> Plan:
    """Read the environment, complete it for the processes to come, and check it.

    Raises:
        Refused: something in it cannot work.
    """
    ports = Ports(
        redis=port_of("REDIS_PORT", 6379),
        mongodb=port_of("MONGODB_PORT", 27017),
        flower=port_of("FLOWER_PORT", 5555),
    )
    redis_is_ours = not os.environ.get("REDIS_URL")
    if redis_is_ours:
        os.environ["REDIS_URL"] = f"redis://{LOOPBACK}:{ports.redis}/0"
    mongodb_is_ours = not os.environ.get("MONGODB_URI")
    if mongodb_is_ours:
        os.environ["MONGODB_URI"] = mongo_url(ports.mongodb)
    # Secrets go by the environment: other users can read command lines.
    if not os.environ.get("OPERATOR_TOKEN"):
        os.environ["OPERATOR_TOKEN"] = folder.secret("operator_token")
    if not os.environ.get("FLOWER_BASIC_AUTH"):
        os.environ["FLOWER_BASIC_AUTH"] = f"operator:{folder.secret('flower_password')}"
    if not os.environ.get("LOG_KEY"):
        os.environ["LOG_KEY"] = folder.secret("log_key")
    os.environ["FLOWER_ADDRESS"] = LOOPBACK
    os.environ["FLOWER_PORT"] = str(ports.flower)
    # What a process prints is in its log at once.
    os.environ["PYTHONUNBUFFERED"] = "1"
    try:
        settings = load()
    except BadSettings as error:
        raise Refused(error.detail) from None
    line = refusal(settings.host, operator_token=True, client_keys=settings.client_keys is not None)
    if line:
        raise Refused(line)
    # An address such as 0.0.0.0 is all of them.
    near = settings.host if is_loopback(settings.host) else LOOPBACK
    door = f"http://{bracketed(near)}:{settings.port}"
    return Plan(folder, settings, ports, door, redis_is_ours, mongodb_is_ours)


def check_ports(plan: Plan) -> None:
    """See that every port that will be listened on is free.

    Raises:
        Refused: one is not, or two parts want the same one.
    """
    wanted = [
        ("PORT", "the front door", plan.settings.host, plan.settings.port),
        ("FLOWER_PORT", "Flower", LOOPBACK, plan.ports.flower),
    ]
    if plan.redis_is_ours:
        wanted.append(("REDIS_PORT", "the embedded Redis server", LOOPBACK, plan.ports.redis))
    if plan.mongodb_is_ours:
        mongodb = ("MONGODB_PORT", "the embedded MongoDB server", LOOPBACK, plan.ports.mongodb)
        wanted.append(mongodb)
    taken: dict[int, str] = {}
    for variable, part, host, port in wanted:
        if port in taken:
            raise Refused(f"{variable} and {taken[port]} are both {port}: give each its own port")
        taken[port] = variable
        if not can_listen(host, port):
            hint = {
                "REDIS_PORT": ", or use that server: REDIS_URL=redis://...",
                "MONGODB_PORT": ", or use that server: MONGODB_URI=mongodb://...",
            }
            raise Refused(
                f"port {port} ({part}) is in use: stop what listens there, or set {variable} to "
                f"another{hint.get(variable, '')}"
            )


def can_listen(host: str, port: int) -> bool:
    """Whether a server could listen there now.

    Raises:
        Refused: there is no such address on this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: connections that linger after a stop do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            if isinstance(error, PermissionError):
                raise Refused(f"port {port}: ports below 1024 need root; choose another") from None
            if isinstance(error, socket.gaierror) or error.errno != errno.EADDRINUSE:
                raise Refused(f"HOST={host}: {error.strerror}") from None
            return False
    return True


def check_own_servers(plan: Plan) -> None:
    """See that servers of the user's own answer.

    Raises:
        Refused: one does not. Its line shows no credentials.
    """
    for ours, variable, url, trouble in (
        (plan.redis_is_ours, "REDIS_URL", plan.settings.redis_url, redis_trouble),
        (plan.mongodb_is_ours, "MONGODB_URI", plan.settings.mongodb_uri, mongodb_trouble),
    ):
        if ours:
            continue
        if why := trouble(url):
            raise Refused(
                f"{variable}: {without_credentials(url)} does not answer ({why}): see to that "
                f"server, or unset {variable} to use an embedded one"
            )
        say(variable, f"{without_credentials(url):<32} answers")


def without_credentials(url: str) -> str:
    """Scheme, hosts and path of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


# What "ready" means


def redis_trouble(url: str) -> str | None:
    """Why a PING is not answered; None if it is."""
    timeout = {"socket_timeout": CHECK_TIMEOUT_S, "socket_connect_timeout": CHECK_TIMEOUT_S}
    try:
        with redis.Redis.from_url(url, **timeout) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        # Its text may repeat the URL.
        return type(error).__name__
    return None


def mongodb_trouble(url: str) -> str | None:
    """Why a ping is not answered; None if it is."""
    milliseconds = int(CHECK_TIMEOUT_S * 1000)
    try:
        with pymongo.MongoClient[dict[str, object]](
            url, serverSelectionTimeoutMS=milliseconds, socketTimeoutMS=milliseconds
        ) as client:
            client.admin.command("ping")
    except (pymongo.errors.PyMongoError, ValueError) as error:
        return type(error).__name__
    return None


def http_answers(url: str) -> bool:
    """A GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=CHECK_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def serves(registry: Registry, pid: int) -> bool:
    """A worker of use is the process or a child of it (the prefork pool)."""
    try:
        workers = registry.load([]).workers
    except BrokerUnavailable:
        return False
    return any(
        worker.status in ("idle", "busy") and group_of(worker.beat.pid) == pid for worker in workers
    )


def group_of(pid: int) -> int | None:
    """Process group; supervisord makes every program the leader of one."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def printed_since(log: Path, text: bytes, start: int) -> bool:
    """Whether the text is in a log, from `start` on, or anywhere if it was rotated since."""
    with log.open("rb") as stream:
        stream.seek(start if log.stat().st_size >= start else 0)
        return text in stream.read()


def readiness(plan: Plan) -> Callable[[Program, Life], bool]:
    """The test of each kind of program."""
    registry = Registry(open_redis(plan.settings), plan.settings)

    def is_ready(program: Program, life: Life) -> bool:
        match program.name:
            case "valkey":
                return redis_trouble(plan.settings.redis_url) is None
            case "secantusd":
                return mongodb_trouble(plan.settings.mongodb_uri) is None
            case "front-door":
                return http_answers(f"{plan.door}/livez")
            case "flower":
                return http_answers(f"{program.where}/healthcheck")
            case "beat":
                # Its banner, printed when its timers are set, whatever the log level.
                return printed_since(plan.folder.log(program.name), b"LocalTime ->", life.log_from)
        return serves(registry, life.pid)

    return is_ready


# The run itself


class Stack:
    """The processes, from the first server to the last line."""

    def __init__(self, plan: Plan, lock: int) -> None:
        self._plan = plan
        self._began = time.monotonic()
        self._servers = list(
            server_programs(plan.folder, plan.ports, plan.redis_is_ours, plan.mongodb_is_ours)
        )
        self._ours = list(our_programs(plan.ports, plan.settings, plan.door))
        self._programs = {program.name: program for program in [*self._servers, *self._ours]}
        self._lives: dict[str, Life] = {}
        self._died_before: set[str] = set()
        self._is_ready = readiness(plan)
        self._interrupted = False
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)
        # A closed terminal ends it, unless it was started with nohup.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._interrupt)
        self._supervisord = Supervisord(plan.folder, list(self._programs.values()), lock)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True

    def run(self) -> None:
        """Start everything and keep it running.

        Raises:
            Interrupted: the user ended it.
            Refused: it could not be started, or supervisord died.
        """
        self._wait_ready(self._servers, SERVERS_READY_S)
        self._init()
        for group in ("workers", "edge"):
            self._supervisord.start_group(group)
        self._wait_ready(self._ours, None)
        self._tell_what_to_try()
        while True:
            self._step()

    def stop(self) -> None:
        """End everything, in order."""
        print("\nStopping: front door, beat and Flower, then the workers, then the servers.")
        self._supervisord.terminate()
        deadline = time.monotonic() + longest_stop_s(self._programs.values())
        event = None
        while not isinstance(event, Ended) and time.monotonic() < deadline:
            event = self._supervisord.next_event(within_s=1)
            if isinstance(event, Killed):
                say(event.name, "did not end in time: killed")
        self._supervisord.close()
        self._plan.folder.stack_env.unlink(missing_ok=True)
        print("Stopped.", flush=True)

    def _step(self) -> None:
        """Tell what has happened, for a moment."""
        event = self._supervisord.next_event(within_s=TICK_S)
        if self._interrupted:
            raise Interrupted
        match event:
            case Spawned(name, pid):
                log = self._plan.folder.log(name)
                self._lives[name] = Life(pid, log.stat().st_size if log.exists() else 0)
            case Died(name, reason, pause_s):
                self._lives.pop(name, None)
                self._died_before.add(name)
                when = f"in {pause_s} s" if pause_s else "at once"
                see = shown(self._plan.folder.log(name))
                say(name, f"died ({reason}): started again {when}; see {see}")
            case Ended():
                raise Refused(
                    f"supervisord has ended; see {shown(self._plan.folder.log('supervisord'))}"
                )
        for name, life in self._lives.items():
            if not life.ready and self._is_ready(self._programs[name], life):
                life.ready = True
                again = " again" if name in self._died_before else ""
                after = f"{time.monotonic() - self._began:.1f} s"
                say(name, f"{self._programs[name].where:<32} ready{again:<6} {after:>8}")

    def _wait_ready(self, programs: Iterable[Program], within_s: float | None) -> None:
        """Until all of them are ready.

        Raises:
            Refused: they were not, in time; without a time they may take for ever.
        """
        names = {program.name for program in programs}
        deadline = time.monotonic() + within_s if within_s else None
        while waited := {name for name in names if not self._ready(name)}:
            if deadline and time.monotonic() > deadline:
                logs = shown(self._plan.folder.logs)
                raise Refused(f"{', '.join(sorted(waited))}: not ready; see the logs in {logs}")
            self._step()

    def _ready(self, name: str) -> bool:
        return name in self._lives and self._lives[name].ready

    def _init(self) -> None:
        """Run `orchestrator init`.

        Raises:
            Refused: it failed; the last line that it printed is in the message.
        """
        command = [str(Path(sys.executable).with_name("orchestrator")), "init"]
        log = self._plan.folder.log("init")
        deadline = time.monotonic() + INIT_S
        with log.open("w") as output:
            init = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            try:
                while init.poll() is None and time.monotonic() < deadline:
                    self._step()
            finally:
                init.kill()
                init.wait()
        if init.returncode:
            last = (log.read_text().splitlines() or [f"nothing for {INIT_S} s"])[-1]
            raise Refused(f"orchestrator init failed: {last} (all of it: {shown(log)})")
        after = f"{time.monotonic() - self._began:.1f} s"
        say("init", f"{'declarations and indexes':<32} done{'':<7} {after:>8}")

    def _tell_what_to_try(self) -> None:
        folder = self._plan.folder
        variables = {
            name.upper(): os.environ[name.upper()]
            for name in Settings.model_fields
            if name.upper() in os.environ and "token" not in name and "keys" not in name
        }
        folder.write_stack_env(variables)
        status = f"{shown(Path(sys.executable).with_name('orchestrator'))} status"
        if any(
            variables.get(name.upper(), field.default) != field.default
            for name, field in Settings.model_fields.items()
            if name in ("redis_url", "mongodb_uri", "mongodb_database", "key_prefix")
        ):
            status = f"( set -a; . {shown(folder.stack_env)}; {status} )"
        password = shown(folder.path / "flower_password")
        print(
            f"\nReady after {time.monotonic() - self._began:.0f} s. Ctrl-C ends it; logs are in "
            f"{shown(folder.logs)}. Three things to try:\n"
            f"  curl -s {self._plan.door}/chat/process -H 'Content-Type: application/json' \\\n"
            """    -d '{"message": "Hola, necesito Isodec de 100 mm, 10 x 5 m, blanco"}'\n"""
            f"  http://{LOOPBACK}:{self._plan.ports.flower}  Flower; user operator, password in "
            f"{password}\n"
            f"  {status}\n",
            flush=True,
        )


def main() -> int:
    """Run the stack; 0 after Ctrl-C, 1 with one line if it could not run."""
    os.umask(0o077)
    folder = Folder(Path(os.environ.get("DATA_DIR") or ".data"))
    stack = None
    try:
        folder.create()
        lock = folder.lock()
        plan = make_plan(folder)
        if not roles(plan.settings.agents_package):
            raise Refused(f"AGENTS_PACKAGE={plan.settings.agents_package}: holds no agent")
        check_ports(plan)
        check_own_servers(plan)
        stack = Stack(plan, lock)
        stack.run()
    except Interrupted:
        return 0
    except FolderInUse as error:
        print(
            f"make run: {shown(folder.path)} is in use by a stack that runs (process {error.pid}): "
            "stop it with Ctrl-C there, or give this one a DATA_DIR and ports of its own",
            file=sys.stderr,
        )
    except (Refused, ServerFailed) as error:
        print(f"make run: {error}", file=sys.stderr)
    except OSError as error:
        print(f"make run: {error.filename or folder.path}: {error.strerror}", file=sys.stderr)
    finally:
        if stack:
            stack.stop()
    return 1


if __name__ == "__main__":
    sys.exit(main())
