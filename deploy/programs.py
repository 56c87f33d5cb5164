"""The processes of a local stack, and how supervisord is told of them.

Three groups, started in this order and stopped in the opposite one: the embedded servers,
the workers, and the edge (front door, beat, Flower), so that nothing is accepted that no
worker is left for. Secrets are not here: they reach the processes by the environment.
"""

import math
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.folder import Folder
from deploy.servers import leashed, mongo_argv, redis_argv
from orchestrator.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ("servers", "workers", "edge")
# A process that dies younger than this is started again after a pause, and each time the
# pause grows by a second; an older one at once. Longer than any of ours takes to get ready.
YOUNG_S = 20
# After its grace time a worker hands back what it holds, and a prefork pool is given 3 s more.
HAND_BACK_S = 5
# For supervisord itself, when all that it runs has ended.
SUPERVISOR_S = 10
# Never give up.
TRIES = 1_000_000_000


@dataclass(frozen=True)
class Program:
    """One process that supervisord keeps alive. `where` is shown when it is ready."""

    name: str
    group: str
    argv: tuple[str, ...]
    where: str
    stop_s: int  # from SIGTERM to SIGKILL


@dataclass(frozen=True)
class Ports:
    """Where the parts of the stack listen on loopback; the front door's is in the settings."""

    redis: int
    mongodb: int
    flower: int


def roles(package: str) -> list[str]:
    """The agents' folders: those of `package` that hold a Celery app of their own."""
    folder = ROOT / package.replace(".", "/")
    return sorted(file.parent.name for file in folder.glob("*/celery.py"))


def server_programs(folder: Folder, ports: Ports, redis: bool, mongodb: bool) -> Iterator[Program]:
    """The embedded servers that are wanted; makes their folders."""
    if redis:
        data = folder.path / "redis"
        data.mkdir(mode=0o700, exist_ok=True)
        argv = tuple(redis_argv(data, ports.redis))
        yield Program("valkey", "servers", argv, f"redis://127.0.0.1:{ports.redis}", 10)
    if mongodb:
        data = folder.path / "mongodb"
        data.mkdir(mode=0o700, exist_ok=True)
        argv = tuple(mongo_argv(data, ports.mongodb))
        yield Program("secantusd", "servers", argv, f"mongodb://127.0.0.1:{ports.mongodb}", 10)


def our_programs(ports: Ports, settings: Settings, door: str) -> Iterator[Program]:
    """Front door (reached at `door`), workers, beat and Flower."""
    package = settings.agents_package
    celery = (sys.executable, "-m", "celery", "-A")
    gunicorn = (sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.conf.py")
    # Here Ctrl-C should not wait for a chat that nobody will read.
    app = ("--graceful-timeout", "3", "api.wsgi:app")
    yield Program("front-door", "edge", (*gunicorn, *app), door, 5)
    worker_s = math.ceil(settings.shutdown_grace_s) + HAND_BACK_S
    for role in roles(package):
        where = f"worker of agents/{role}"
        yield Program(role, "workers", (*celery, f"{package}.{role}", "worker"), where, worker_s)
    yield Program("beat", "edge", (*celery, f"{package}.all", "beat"), "timers", 5)
    flower = f"http://127.0.0.1:{ports.flower}"
    yield Program("flower", "edge", (*celery, f"{package}.all", "flower"), flower, 5)


def longest_stop_s(programs: Iterable[Program]) -> int:
    """How long all of them may take to stop: the groups do so one after the other."""
    longest: dict[str, int] = {}
    for program in programs:
        longest[program.group] = max(longest.get(program.group, 0), program.stop_s)
    return sum(longest.values()) + SUPERVISOR_S


def supervisor_conf(folder: Folder, socket: Path, programs: Iterable[Program]) -> str:
    """The text of supervisord's configuration; it starts the servers by itself."""
    conf: dict[str, dict[str, str]] = {}
    conf["supervisord"] = {
        "nodaemon": "true",
        "umask": "077",
        "directory": str(ROOT),
        "logfile": str(folder.log("supervisord")),
        # The launcher reads it to the end; it is a line or two for each start of a process.
        "logfile_maxbytes": "0",
        "silent": "true",
        "pidfile": str(folder.path / "supervisord.pid"),
    }
    conf["unix_http_server"] = {"file": str(socket)}
    conf["supervisorctl"] = {"serverurl": f"unix://{socket}"}
    conf["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    members: dict[str, list[str]] = {}
    for program in programs:
        members.setdefault(program.group, []).append(program.name)
        conf[f"program:{program.name}"] = {
            "command": shlex.join(leashed(list(program.argv))),
            "autostart": "true" if program.group == "servers" else "false",
            "autorestart": "true",
            "startsecs": str(YOUNG_S),
            "startretries": str(TRIES),
            "stopwaitsecs": str(program.stop_s),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(folder.log(program.name)),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "2",
        }
    for group, names in members.items():
        # The highest is started last and stopped first.
        priority = str(GROUPS.index(group) + 1)
        conf[f"group:{group}"] = {"programs": ",".join(names), "priority": priority}
    lines: list[str] = []
    for section, values in conf.items():
        # supervisord expands %(...)s itself.
        lines += [f"[{section}]"]
        lines += [f"{key} = {value.replace('%', '%%')}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
