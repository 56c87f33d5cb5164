"""How gunicorn serves the front door: its worker and its log, in our manner.

Keeps secret what gunicorn does by itself that a client or an operator would see: pages for
requests that it cannot read, lines of its own form, and a stop that cuts off who waits.
"""

import logging
import threading
import uuid
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


class FrontDoor(ThreadWorker):
    """gunicorn's worker of threads.

    When it is told to stop, streams end at once (their clients come back and go on where they
    were), and requests that wait for a reply are given the grace time, less a second: then they
    are answered as still under way.
    """

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
