"""A plain request's time beside open event streams and waiting chats, and without them.

The front door is gunicorn as it is shipped. No worker runs, so that every chat waits; streams
are those of sessions to which nothing happens, which the front door compares with the store
once a second all the same.
"""

import http.client
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sides import POLL_S, ROOT, START_S
from deploy.servers import LOOPBACK, free_port, leashed
from orchestrator.declarations import discover
from orchestrator.engine import Engine
from orchestrator.settings import Settings

# Chats wait for this long: long enough for all to come and for the measurement, or it is refused.
WAIT_S = 30
# Of each kind, before the crowd and beside it.
REQUESTS = 400
AT_ONCE = 10
SESSIONS = "crowd-{}"


@dataclass(frozen=True)
class Times:
    """Milliseconds of a plain request, one after the other on one connection."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Crowd:
    """What was measured: kind of request -> times."""

    streams: int
    chats: int
    alone: dict[str, Times]
    beside: dict[str, Times]
    kb_per_waiter: float


def crowd(streams: int, chats: int, redis_url: str, mongodb_uri: str, log_file: Path) -> Crowd:
    """Measure with and without the crowd.

    Raises:
        RuntimeError: a stream was not open, or a chat was answered, when the measurement ended.
    """
    _allow_files(2 * (streams + chats) + 200)
    settings = Settings(redis_url=redis_url, mongodb_uri=mongodb_uri)
    engine = Engine(settings)
    engine.init(discover("agents").values())
    with front_door(settings, log_file) as (port, process):
        task_id = _ask(port, "POST", "/api/chat?wait=0", {"message": "hola", "session_id": "one"})
        for n in range(streams):
            engine.sessions.open(
                SESSIONS.format(n), None, caller="local", channel="web", trusted=True
            )
        paths = {"/livez": "/livez", "read a task": f"/api/tasks/{task_id}"}
        _times(port, paths)  # connections and caches are made
        alone = _times(port, paths)
        before_kb = _resident_kb(process)
        watching = [_watch(port, n) for n in range(streams)]
        began = time.monotonic()
        waiting: list[socket.socket] = []
        while len(waiting) < chats:
            # In steps: more at once than the store takes in time are told to come again.
            some = range(len(waiting), min(len(waiting) + AT_ONCE, chats))
            waiting += [_chat(port, n) for n in some]
            _until_they_wait(engine, len(waiting))
        beside = _times(port, paths)
        kb = (_resident_kb(process) - before_kb) / max(streams + chats, 1)
        took_s = time.monotonic() - began
        if any(_ended(each) for each in watching) or any(_ended(each) for each in waiting):
            raise RuntimeError(f"a stream or a chat did not hold for {took_s:.0f} s")
        for each in (*watching, *waiting):
            each.close()
    engine.close()
    return Crowd(streams, chats, alone, beside, kb)


@contextmanager
def front_door(
    settings: Settings, log_file: Path, **more: str
) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """The front door as it is shipped: its port and process. `more` are environment variables."""
    port = free_port()
    config = str(ROOT / "deploy" / "gunicorn.conf.py")
    environment = {
        "REDIS_URL": settings.redis_url,
        "MONGODB_URI": settings.mongodb_uri,
        "PORT": str(port),
        **more,
    }
    argv = [sys.executable, "-m", "gunicorn", "--config", config, "api.wsgi:app"]
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            leashed(argv), cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            with suppress(OSError):
                _get(http.client.HTTPConnection(LOOPBACK, port, timeout=5), "/livez")
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"the front door did not open within {START_S:.0f} s")
            time.sleep(POLL_S)
        yield port, process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _times(port: int, paths: dict[str, str]) -> dict[str, Times]:
    times: dict[str, list[float]] = {name: [] for name in paths}
    line = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    for _ in range(REQUESTS):
        for name, path in paths.items():
            began = time.perf_counter()
            _get(line, path)
            times[name].append((time.perf_counter() - began) * 1e3)
    line.close()
    ordered = {name: sorted(each) for name, each in times.items()}
    return {
        name: Times(each[len(each) // 2], each[int(len(each) * 0.99)])
        for name, each in ordered.items()
    }


def _get(line: http.client.HTTPConnection, path: str) -> None:
    line.request("GET", path)
    response = line.getresponse()
    response.read()
    if response.status != 200:
        raise RuntimeError(f"{path}: {response.status}")


def _ask(port: int, method: str, path: str, body: Any) -> str:
    line = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    line.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    told = json.loads(line.getresponse().read())
    line.close()
    return str(told["task_id"])


def _watch(port: int, n: int) -> socket.socket:
    """An open stream, whose first event has come."""
    line = socket.create_connection((LOOPBACK, port), timeout=30)
    path = f"/api/sessions/{SESSIONS.format(n)}/events"
    line.sendall(f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode())
    heard = b""
    while b"STATE_DELTA" not in heard:
        got = line.recv(4096)
        if not got or b" 503 " in heard[:20]:
            raise RuntimeError(f"stream {n} was refused: {heard[:200]!r}")
        heard += got
    return line


def _chat(port: int, n: int) -> socket.socket:
    """A chat that has been sent."""
    body = json.dumps({"message": "hola", "session_id": f"chat-{n}"}).encode()
    head = (
        f"POST /api/chat?wait={WAIT_S} HTTP/1.1\r\nHost: {LOOPBACK}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    line = socket.create_connection((LOOPBACK, port), timeout=30)
    line.sendall(head.encode() + body)
    return line


def _until_they_wait(engine: Engine, chats: int) -> None:
    deadline = time.monotonic() + WAIT_S
    stored = {"type": "process_message", "state": {"$in": ["blocked", "queued"]}}
    # The one more is that which is read.
    while engine.database["tasks"].count_documents(stored) < chats + 1:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{chats} chats were not accepted within {WAIT_S} s")
        time.sleep(POLL_S)


def _ended(line: socket.socket) -> bool:
    """Whether the other side has ended a stream, or answered a chat."""
    line.setblocking(False)
    try:
        while got := line.recv(65536):
            if got.startswith(b"HTTP/1.1"):
                return True
    except BlockingIOError:
        return False
    return True


def _resident_kb(process: "subprocess.Popen[bytes]") -> float:
    """Of all that the process has started: the leash, gunicorn's arbiter and its worker."""
    pages, left = 0, [process.pid]
    while left:
        pid = left.pop()
        pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        left += [int(child) for child in children.split()]
    return pages * resource.getpagesize() / 1000


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
