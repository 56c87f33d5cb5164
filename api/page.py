"""The chat page at `/`, the operators' pages at `/workflows` and `/reports`, and the business.

The pages use the public API like any other client. Nothing on them may come from elsewhere or
stand in the markup: their policy allows no inline script, so that a text that got in as markup
could not run. The drawings of workflows are styled inline, by the library that makes them
(Mermaid, MIT, `page/mermaid.LICENSE`); it is served from here.
"""

import gzip
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
DRAWING_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
FRAMING_POLICY = DRAWING_POLICY.replace(
    "default-src 'none'", "default-src 'none'; frame-src 'self'"
)
MERMAID = "mermaid-11.17.2.js.gz"
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
    """`/`, `/workflows` and `/reports` with their styles and scripts, and `/api/business`."""
    page = APIBlueprint("page", __name__, tag="Page")
    contents = {
        f"{name}.{kind}": _read(f"{name}.{kind}")
        for name in ("chat", "workflows", "reports")
        for kind in ("html", "css", "js")
    }
    packed = _read(MERMAID)
    contents["mermaid.js"] = gzip.decompress(packed)
    if engine.settings.page_key is not None:
        # No secret any more: whoever opens the page has it.
        named = f'<body data-key="{html.escape(engine.settings.page_key)}">'
        contents["chat.html"] = contents["chat.html"].replace(b"<body>", named.encode())

    def served(name: str, policy: str = POLICY) -> Any:
        kind = TYPES[name.rpartition(".")[2]]
        response = Response(contents[name], content_type=f"{kind}; charset=utf-8")
        response.headers["Content-Security-Policy"] = policy
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

    @page.get("/workflows")
    @page.doc(summary="The operators' page of workflows", responses=file_of("html"))
    def workflows() -> Any:
        """Definitions and runs, drawn; a run's states as they change. It asks for the operator's
        token."""
        return served("workflows.html", DRAWING_POLICY)

    @page.get("/workflows.css")
    @page.doc(summary="Its style", responses=file_of("css"))
    def workflows_style() -> Any:
        return served("workflows.css")

    @page.get("/workflows.js")
    @page.doc(summary="Its script", responses=file_of("js"))
    def workflows_script() -> Any:
        return served("workflows.js")

    @page.get("/reports")
    @page.doc(summary="The operators' page of reports", responses=file_of("html"))
    def reports() -> Any:
        """Alerts, and reports as they were made. It asks for the operator's token."""
        # A report in its frame has its style within.
        return served("reports.html", FRAMING_POLICY)

    @page.get("/reports.css")
    @page.doc(summary="Its style", responses=file_of("css"))
    def reports_style() -> Any:
        return served("reports.css")

    @page.get("/reports.js")
    @page.doc(summary="Its script", responses=file_of("js"))
    def reports_script() -> Any:
        return served("reports.js")

    @page.get("/mermaid.js")
    @page.doc(summary="What draws workflows", responses=file_of("js"))
    def mermaid() -> Any:
        response = served("mermaid.js")
        response.headers["Vary"] = "Accept-Encoding"
        if response.status_code == 200 and request.accept_encodings["gzip"]:
            response.set_data(packed)
            response.headers["Content-Encoding"] = "gzip"
        return response

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
