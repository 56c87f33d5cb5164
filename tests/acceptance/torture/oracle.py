"""The outside world: it writes down each run that begins and each effect that takes place.

An effect is put under its key if nothing is there. One more with the same payload is harmless
(whoever works without transactions repeats effects, and the world tells them by their keys);
one with another payload is a second effect, and is never forgotten.
"""

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Entry:
    """One thing that was seen, in the order in which it was seen.

    `key` is the job's. A "second" is an effect whose key had another payload. `facts` of a
    run tell its task, attempt, phase and process; those of an effect are its payload.
    """

    at: float  # time.monotonic() here
    what: Literal["began", "effect", "again", "second"]
    key: str
    facts: dict[str, Any]


class Oracle:
    """Writes down what it is told; hears handlers on loopback from `listen` to `close`.
    Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._effects: dict[str, dict[str, Any]] = {}

    def listen(self) -> Self:
        """Take calls of handlers."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.oracle = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    @property
    def url(self) -> str:
        """Where handlers reach it."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def began(self, key: str, facts: dict[str, Any]) -> None:
        """A handler began a run."""
        with self._lock:
            self._entries.append(Entry(time.monotonic(), "began", key, facts))

    def put(self, key: str, payload: dict[str, Any]) -> bool:
        """An effect arrived; False where its key holds another one."""
        with self._lock:
            known = self._effects.setdefault(key, payload)
            what: Literal["effect", "again", "second"] = "effect"
            if known is not payload:
                what = "again" if known == payload else "second"
            self._entries.append(Entry(time.monotonic(), what, key, payload))
            return what != "second"

    def entries(self) -> list[Entry]:
        """Everything that was seen."""
        with self._lock:
            return list(self._entries)

    @property
    def effects(self) -> int:
        """How many took place."""
        with self._lock:
            return len(self._effects)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Many handlers speak at once when a backlog drains.
    request_queue_size = 256
    oracle: Oracle


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return  # who was about to tell it was killed
        told = json.loads(body)
        oracle = self.server.oracle  # type: ignore[attr-defined]
        if self.path == "/began":
            oracle.began(told["key"], told["facts"])
            status = 204
        else:
            status = 204 if oracle.put(told["key"], told["facts"]) else 409
        self.send_response(status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """It has its own log."""
