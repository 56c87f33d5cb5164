"""How gunicorn serves the front door: its worker and its log, in our manner.

Keeps secret what gunicorn does by itself that a client or an operator would see: pages for
requests that it cannot read, lines of its own form, a stop that cuts off who waits, and patience
without end with who sends slowly.
"""

import contextlib
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import json
from gunicorn.glogging import Logger
from gunicorn.http import errors as unreadable
from gunicorn.workers.gthread import ThreadWorker

from api.errors import PROBLEM_TYPE, UNREADABLE
from orchestrator import logs
from orchestrator.engine import Engine
from orchestrator.logs import log
from orchestrator.settings import load

# Before the end of the grace time, for what is still to be said.
LAST_WORD_S = 1.0
# What a client can be told of more precisely than by 400.
STATUS: dict[type[Exception], int] = {
    unreadable.ForbiddenProxyRequest: 403,
    unreadable.LimitRequestLine: 414,
    unreadable.ExpectationFailed: 417,
    unreadable.LimitRequestHeaders: 431,
}
OURS = (
    unreadable.ConfigurationProblem,
    unreadable.InvalidResponseHeader,
    unreadable.InvalidResponseHeaderName,
)


class Reading:
    """Connections on which a request is being read, and until when that may take."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._until: dict[socket.socket, float] = {}
        self._lock = threading.Lock()

    def begin(self, line: socket.socket) -> None:
        """A request begins."""
        with self._lock:
            self._until[line] = time.monotonic() + self._limit_s

    def end(self, line: socket.socket) -> None:
        """It has been read, or is given up. Repeatable."""
        with self._lock:
            self._until.pop(line, None)

    def cut_off(self) -> int:
        """Read no more of what takes too long; returns how many."""
        now = time.monotonic()
        with self._lock:
            late = [line for line, until in self._until.items() if until < now]
            for line in late:
                del self._until[line]
        for line in late:
            # Whoever reads gets an end; an answer can still be sent.
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RD)
        return len(late)


class Body:
    """A reader of gunicorn's, that tells when there is nothing left to read."""

    def __init__(self, reader: Any, ended: Callable[[], None]) -> None:
        self._reader = reader
        self._ended = ended

    def read(self, size: int) -> bytes:
        """As the reader's."""
        got: bytes = self._reader.read(size)
        if not got or getattr(self._reader, "length", None) == 0:
            self._ended()
        return got

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class FrontDoor(ThreadWorker):
    """gunicorn's worker of threads.

    A client that does not get its request across in time is no longer listened to.

    When it is told to stop, streams end at once (their clients come back and go on where they
    were), and requests that wait for a reply are given the grace time, less a second: then they
    are answered as still under way.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading = Reading(load().request_timeout_s)

    def handle(self, conn: Any) -> Any:
        """One request of a connection, in a thread."""
        line = conn.sock
        self._reading.begin(line)
        try:
            return super().handle(conn)
        finally:
            self._reading.end(line)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """A request whose head has been read."""
        line = conn.sock
        if getattr(req.body.reader, "length", None) == 0:
            self._reading.end(line)
        else:
            req.body.reader = Body(req.body.reader, lambda: self._reading.end(line))
        return super().handle_request(req, conn)

    def notify(self) -> None:
        """Called every second or oftener by the thread that accepts."""
        super().notify()
        if late := self._reading.cut_off():
            log.warning("http.too_slow", connections=late)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM, also for a reload."""
        engine = _engine_of(self.wsgi)
        if engine is not None and self.alive:
            engine.events.close_watches()
            left_s = max(self.cfg.graceful_timeout - LAST_WORD_S, 0)
            timer = threading.Timer(left_s, engine.replies.close_waits)
            timer.daemon = True
            timer.start()
        super().handle_exit(sig, frame)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that gunicorn could not read; nothing of it is logged or repeated."""
        if isinstance(exc, OURS) or not isinstance(exc, unreadable.ParseException):
            log.error("http.unserved", exc_info=exc)
            self._say(client, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", None)
            return
        status = next((STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS), 400)
        log.warning("http.unreadable", status=status, error=type(exc).__name__)
        detail = f"The request is not HTTP as it is spoken here ({type(exc).__name__})."
        self._say(client, HTTPStatus(status), UNREADABLE, detail)

    def _say(self, client: Any, status: HTTPStatus, code: str, detail: str | None) -> None:
        request_id = uuid.uuid4().hex
        body = json.dumps(
            {
                "type": PROBLEM_TYPE + code,
                "title": status.phrase,
                "status": status,
                "detail": detail or status.phrase,
                # Which path was meant is not known.
                "instance": "",
                "code": code,
                "request_id": request_id,
            }
        )
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\nConnection: close\r\n"
            f"Content-Type: application/problem+json\r\nX-Request-ID: {request_id}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            client.sendall((head + body).encode())
        except OSError as error:
            log.info("http.client_gone", error=type(error).__name__)


class Log(Logger):
    """gunicorn's own lines, through our renderer."""

    def setup(self, cfg: Any) -> None:
        """Called at the start and at each reload."""
        super().setup(cfg)
        logs.configure(load())
        self.error_log.handlers[:] = []
        self.error_log.propagate = True
        self.error_log.setLevel(logging.NOTSET)


def _engine_of(app: Any) -> Engine | None:
    """The engine of an application that was loaded."""
    found = getattr(app, "extensions", {}).get("engine")
    return found if isinstance(found, Engine) else None
