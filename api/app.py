"""The Flask application: its routes, and what is true of every request.

Every request has an id and leaves one line in the log; every error is a problem document;
other origins' pages may call only where the settings say so.
"""

import re
import time
import uuid
from typing import Any

from apiflask import APIFlask
from flask import Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider
from flask_cors import CORS

from api import (
    chat,
    customers,
    dead_letters,
    documentation,
    errors,
    events,
    followups,
    operations,
    outbox,
    page,
    quotes,
    reports,
    sessions,
    syncs,
    tasks,
    whatsapp,
    workflows,
)
from api.auth import Access
from api.inputs import MAX_BODY_BYTES
from orchestrator import logs
from orchestrator.engine import Engine, installed_version
from orchestrator.logs import log
from orchestrator.metrics import Metrics

REQUEST_ID = re.compile(r"[A-Za-z0-9._~:-]{1,128}")


def create_app(engine: Engine) -> APIFlask:
    """The front door to an engine. Connects to nothing by itself."""
    app = APIFlask(
        "api",
        title="Agent orchestrator",
        version=installed_version(),
        docs_path=None,  # its pages load scripts from elsewhere; ours is in `documentation`
        json_errors=False,
        static_folder=None,  # type: ignore[arg-type]
    )
    # One more than is read: a body without a declared length is cut there without an error.
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES + 1
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    if isinstance(app.json, DefaultJSONProvider):
        app.json.ensure_ascii = False  # people read it with curl
        app.json.sort_keys = False
    errors.register(app)
    _watch(app, engine.metrics)
    if engine.settings.origins:
        CORS(
            app,
            origins=engine.settings.origins,
            methods=["GET", "HEAD", "POST", "PATCH", "OPTIONS"],
            allow_headers=[
                "Content-Type",
                "Authorization",
                "X-API-Key",
                "Idempotency-Key",
                "X-Request-ID",
            ],
            expose_headers=["Link", "Location", "Retry-After", "X-Request-ID"],
            max_age=600,
        )
    access = Access(engine.settings)
    for routes in (
        chat.routes,
        quotes.routes,
        reports.routes,
        followups.routes,
        syncs.routes,
        sessions.routes,
        tasks.routes,
        dead_letters.routes,
        outbox.routes,
        customers.routes,
        operations.routes,
        events.routes,
        page.routes,
        workflows.routes,
    ):
        app.register_blueprint(routes(engine, access))
    app.register_blueprint(whatsapp.routes(engine))
    documentation.describe(app)
    app.extensions["engine"] = engine
    return app


def _watch(app: Flask, metrics: Metrics) -> None:
    """Give every request an id, headers that are always due, and its line in the log."""

    @app.before_request
    def begin() -> None:
        g.started = time.perf_counter()
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        logs.about_nothing()
        logs.about(request_id=g.request_id)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        took_s = time.perf_counter() - g.started
        # The route's pattern: a path holds ids.
        route = request.url_rule.rule if request.url_rule else None
        metrics.answered(request.method, route, response.status_code, took_s)
        facts: dict[str, Any] = {
            "method": request.method,
            "route": route,
            "status": response.status_code,
            "ms": round(took_s * 1000, 1),
            "caller": g.get("caller"),
        }
        log.info("http.request", **facts)
        return response
