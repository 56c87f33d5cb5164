"""The chat page at `/`: three files as they are, and the business that it speaks for.

The page uses the public API like any other client. Nothing on it may come from elsewhere or
stand in the markup: its policy allows no inline script, so that a text that got in as markup
could not run.
"""

import hashlib
import html
from importlib.resources import files
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from api import schemas
from api.auth import Access
from api.promptness import prompt
from orchestrator.engine import Engine
from orchestrator.errors import NotFound

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
BUSINESS = "business"
LOGO: dict[Any, Any] = {
    200: {
        "description": "The image.",
        "content": {
            kind: {"schema": {"type": "string", "contentEncoding": "binary"}}
            for kind in ("image/png", "image/jpeg")
        },
    },
    304: "It is the one you have.",
    404: "There is none.",
    503: "The store is unavailable.",
}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """`/` with its style and script, and `/api/business`."""
    page = APIBlueprint("page", __name__, tag="Page")
    contents = {name: _read(name) for name in ("chat.html", "chat.css", "chat.js")}
    if engine.settings.page_key is not None:
        # No secret any more: whoever opens the page has it.
        named = f'<body data-key="{html.escape(engine.settings.page_key)}">'
        contents["chat.html"] = contents["chat.html"].replace(b"<body>", named.encode())

    def served(name: str) -> Any:
        kind = TYPES[name.rpartition(".")[2]]
        response = Response(contents[name], content_type=f"{kind}; charset=utf-8")
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-cache"
        response.set_etag(hashlib.sha256(contents[name]).hexdigest()[:32])
        return response.make_conditional(request)

    @page.get("/")
    @page.doc(summary="The chat page", responses=file_of("html"))
    def chat() -> Any:
        return served("chat.html")

    @page.get("/chat.css")
    @page.doc(summary="Its style", responses=file_of("css"))
    def style() -> Any:
        return served("chat.css")

    @page.get("/chat.js")
    @page.doc(summary="Its script", responses=file_of("js"))
    def script() -> Any:
        return served("chat.js")

    def stored() -> dict[str, Any]:
        with prompt(engine):
            return engine.resources.get(BUSINESS, BUSINESS)

    @page.get("/api/business")
    @page.output(schemas.Business)
    @page.doc(
        summary="Whose front desk this is",
        responses={404: "No agent has said so.", 503: "The store is unavailable."},
    )
    def business() -> Any:
        """Name, colour and contact of the business, for pages that speak for it."""
        return stored()

    @page.get("/api/business/logo")
    @page.doc(summary="The business's logo", responses=LOGO)
    def logo() -> Any:
        """An image, PNG or JPEG."""
        file_id = stored()["logo"]
        with prompt(engine):
            file = engine.files.get(file_id) if file_id else None
        if file is None:
            raise NotFound("There is no logo")
        response = Response(file.content, content_type=file.content_type)
        response.headers["Cache-Control"] = "public, max-age=3600"
        response.set_etag(file.etag)
        return response.make_conditional(request)

    return page


def file_of(kind: str) -> dict[Any, Any]:
    """How the answer with a file of the page is described."""
    content = {TYPES[kind]: {"schema": {"type": "string"}}}
    return {200: {"description": "The file.", "content": content}, 304: "It is the one you have."}


def _read(name: str) -> bytes:
    return (files("api") / "page" / name).read_bytes()
