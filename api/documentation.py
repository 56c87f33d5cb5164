"""OpenAPI at `/openapi.json`, and a page to read it at `/docs` that needs no script.

APIFlask tells the routes, their models and their statuses. What is added here is what it cannot
know: that errors are problem documents, who may ask, which routes heed an Idempotency-Key, and
an example of every body.
"""

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from apiflask import APIFlask
from flask import render_template_string

from api import examples
from api.errors import RETRY_AFTER_S
from api.page import file_of
from api.schemas import Problem, UnderWay
from api.whatsapp import SIGNATURE

DESCRIPTION = """A customer's message goes in, a reply comes out, whatever dies in between.

Errors are RFC 9457 problem documents with a stable `code`. A 503 means that it is unknown
whether a request was accepted: send it again with the same `Idempotency-Key`.

A body is one JSON object in UTF-8 of at most 64 kB, nested at most 32 deep, without repeated or
unknown names. A query parameter that is repeated or unknown is refused. Requests that are no
HTTP/1.1 are answered with 400, 414 or 431. Each response has an `X-Request-ID`, the request's
own where it brought one; logs and tasks tell it."""

Document = dict[str, Any]
REFERENCE = "#/components/schemas/"

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": 257,
        # RFC 9651, 3.3.3; or without the quotes.
        "pattern": r'^("([ !#-\[\]-~]|\\["\\])+"|[!#-+\--~]+)$',
        "description": "A quoted string of the caller's choice: a repetition with the same key "
        "and body has no second effect.",
    },
    "example": examples.PARAMETERS["Idempotency-Key"],
}
# The routes that heed it.
KEYED = {
    ("post", "/chat/process"),
    ("post", "/api/chat"),
    ("post", "/api/tasks"),
    ("post", "/api/quotes"),
    ("post", "/api/followups"),
    ("post", "/api/syncs/{sync}/runs"),
    ("post", "/api/syncs/{sync}/conflicts/{conflict_id}/resolve"),
    ("post", "/api/catalogue/imports/{import_id}/decide"),
    ("post", "/api/catalogue/versions/{version_number}/restore"),
    ("post", "/api/reports"),
    ("post", "/api/reports/subscriptions"),
    ("post", "/api/quotes/{quote_id}/accept"),
    ("post", "/api/quotes/{quote_id}/reject"),
    ("post", "/api/sessions/{session_id}/reply"),
    ("post", "/api/workflows/{workflow_id}/runs"),
}
LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[0-9]{0,15}$"},
    "description": "The last event that was seen: what came after it is sent.",
    "example": examples.PARAMETERS["Last-Event-ID"],
}


def _query(name: str, description: str, example: str, **schema: Any) -> Document:
    schema = {"type": "string", **schema}
    told = {"description": description, "example": example, "schema": schema}
    return {"name": name, "in": "query", **told}


# Parameters that are read by hand.
READ_BY_HAND: dict[tuple[str, str], list[Document]] = {
    ("get", "/readyz"): [_query("verbose", "Show each dependency.", "")],
    ("get", "/api/whatsapp/webhook"): [
        _query("hub.mode", "What Meta wants.", "subscribe"),
        _query("hub.verify_token", "The token that was told to Meta.", "…"),
        _query("hub.challenge", "What to answer with.", "1158201444"),
    ],
    ("post", "/api/whatsapp/webhook"): [
        {
            "name": SIGNATURE,
            "in": "header",
            "schema": {"type": "string"},
            "description": "`sha256=` and the HMAC of the raw body with the app's secret, in hex.",
        }
    ],
}
# Bodies that are read by hand, since no model tells all that may be in them.
BODIES: dict[tuple[str, str], tuple[str, Document]] = {
    ("put", "/api/workflows/{workflow_id}"): (
        "A workflow definition; docs/workflows.md is its reference. Also as application/yaml.",
        examples.DEFINITION,
    ),
    ("post", "/api/workflows/runs/{run_id}/callbacks/{name}"): (
        "What the run goes on with.",
        {"approved": True},
    ),
    ("post", "/api/whatsapp/webhook"): (
        "Meta's envelope; what of it is not understood is left alone.",
        examples.WEBHOOK,
    ),
}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ spec.info.title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
h3 { border-top: 1px solid #ccc; margin-top: 2rem; padding-top: 1rem }
code, pre { background: #f3f3f3; border-radius: 4px; font-size: .9em; padding: .1em .3em }
pre { overflow-x: auto; padding: .7em }
td, th { padding: .2em .8em .2em 0; text-align: left; vertical-align: top }
</style></head><body>
{% macro link(schema) -%}
  {%- if '$ref' in schema -%}
    {%- set name = schema['$ref'].split('/')[-1] -%}<a href="#{{ name }}">{{ name }}</a>
  {%- elif 'anyOf' in schema -%}
    {%- for one in schema.anyOf %}{{ ' or ' if not loop.first }}{{ link(one) }}{% endfor -%}
  {%- elif 'enum' in schema -%}<code>{{ schema.enum | join('</code>, <code>' | safe) }}</code>
  {%- elif schema.type == 'array' -%}list of {{ link(schema['items']) }}
  {%- else -%}{{ schema.type or 'anything' }}{%- endif -%}
{%- endmacro %}
<h1>{{ spec.info.title }} <small>{{ spec.info.version }}</small></h1>
<p style="white-space: pre-line">{{ spec.info.description }}</p>
<p>For programs: <a href="openapi.json">openapi.json</a></p>
<h2>Requests</h2>
{% for path, operations in spec.paths.items() %}{% for method, operation in operations.items() %}
<h3 id="{{ method }}-{{ path }}"><code>{{ method | upper }} {{ path }}</code>
{{ operation.summary }}</h3>
<p style="white-space: pre-line">{{ operation.description }}</p>
<table>
{% if operation.security is defined %}
<tr><th>who may</th><td colspan="2">
{% for one in operation.security %}{{ ', ' if not loop.first }}{{ (one | list | first) or
'without credentials from this machine, or by the id' }}{% endfor %}
</td></tr>
{% endif %}
{% for parameter in operation.parameters %}
<tr><th><code>{{ parameter.name }}</code></th><td>{{ parameter.in }}</td>
<td>{{ parameter.schema.description }}</td></tr>
{% endfor %}
{% if operation.requestBody %}
<tr><th>body</th><td colspan="2">
{{ link(operation.requestBody.content['application/json'].schema) }}</td></tr>
{% endif %}
{% for status, response in operation.responses | dictsort %}
<tr><th>{{ status }}</th><td>{{ response.description }}</td>
<td>{% for content in (response.content or {}).values() %}{{ link(content.schema) }}{% endfor %}
</td></tr>
{% endfor %}
</table>
{% endfor %}{% endfor %}
<h2>Bodies</h2>
{% for name, schema in spec.components.schemas.items() %}
<h3 id="{{ name }}">{{ name }}</h3>
<p style="white-space: pre-line">{{ schema.description }}</p>
<table>
{% for field, about in (schema.properties or {}).items() %}
<tr><th><code>{{ field }}</code></th><td>{{ link(about) }}</td><td>{{ about.description }}</td></tr>
{% endfor %}
</table>
{% for example in schema.examples or [] %}<pre>{{ example | tojson(indent=2) }}</pre>{% endfor %}
{% endfor %}
</body></html>"""


def describe(app: APIFlask) -> None:
    """Serve the description of `app`'s routes, for programs and for people."""
    app.config.update(
        OPENAPI_VERSION="3.1.0",
        DESCRIPTION=DESCRIPTION,
        AUTO_404_RESPONSE=False,
        VALIDATION_ERROR_DESCRIPTION="A field is not valid.",
        SECURITY_SCHEMES={
            "operator": {"type": "http", "scheme": "bearer", "description": "Operator token."},
            "client": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        },
    )

    @app.spec_processor
    def correct(spec: Any) -> Any:
        _name_once(spec)
        spec["paths"] |= {"/openapi.json": _served("This description", "application/json")}
        for method, path, operation in operations(spec):
            _complete(app, method, path, operation)
        _add_models(spec)
        _show_requests(spec)
        return spec

    @app.get("/docs")
    @app.doc(summary="This description, for people", tags=["Page"], responses=file_of("html"))
    def docs() -> str:
        return render_template_string(PAGE, spec=app.spec)


def operations(spec: Document) -> Iterator[tuple[str, str, Document]]:
    """Method, path and description of every operation."""
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def _name_once(spec: Document) -> None:
    """Call what is inside of a model by its own name, once: APIFlask puts the model's before it."""
    schemas = spec["components"]["schemas"]
    text = json.dumps(spec)
    for name in schemas:
        text = text.replace(f'"{REFERENCE}{name}"', f'"{REFERENCE}{name.rpartition(".")[2]}"')
    renamed = json.loads(text)
    kept: Document = {}
    for name, schema in renamed["components"]["schemas"].items():
        kept.setdefault(name.rpartition(".")[2], schema)
    spec.update(renamed)
    spec["components"]["schemas"] = kept


def _complete(app: APIFlask, method: str, path: str, operation: Document) -> None:
    view = _view(app, method, path)
    if view is not None and not getattr(view, "_spec", {}).get("description"):
        operation["description"] = inspect.getdoc(view) or operation["summary"]
    security = getattr(view, "security", None)
    if security is not None:
        operation["security"] = [{name: []} if name else {} for name in security]
    responses = operation["responses"]
    responses.setdefault("400", {"description": "The request cannot be read."})
    if parameters := operation.setdefault("parameters", []):
        responses.setdefault("414", {"description": "The address is longer than 4 kB."})
    if security is not None:
        responses.setdefault("422", {"description": "A parameter is not known here."})
    parameters += READ_BY_HAND.get((method, path), [])
    if (method, path) in KEYED:
        parameters.append(IDEMPOTENCY_KEY)
    if path.endswith("/events"):
        parameters.append(LAST_EVENT_ID)
    for parameter in parameters:
        if parameter["name"] in examples.PARAMETERS:
            parameter["example"] = examples.PARAMETERS[parameter["name"]]
    if (method, path) in BODIES:
        told, example = BODIES[(method, path)]
        schema = {"type": "object", "description": told}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        operation["requestBody"]["content"]["application/json"]["example"] = example
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
    for status, response in responses.items():
        _complete_response(method, path, operation, int(status), response)


def _complete_response(
    method: str, path: str, operation: Document, status: int, response: Document
) -> None:
    told = response.get("content", {}).get("application/json", {}).get("schema")
    if status == 202 and not told:
        # The chat's answer is whole also while the reply is to come.
        name = "ChatReply" if "/chat" in path else UnderWay.__name__
        response["content"] = {"application/json": {"schema": {"$ref": REFERENCE + name}}}
    headers = response.setdefault("headers", {})
    headers["X-Request-ID"] = {"schema": {"type": "string"}}
    if status in (201, 202):
        headers["Location"] = {"schema": {"type": "string"}}
    if status in RETRY_AFTER_S:
        headers["Retry-After"] = {"schema": {"type": "integer"}}
    if status in (204, 304):
        response.pop("content", None)
    if status >= 400:
        known = examples.problems(method, path, status, "requestBody" in operation)
        response["content"] = {
            "application/problem+json": {
                "schema": {"$ref": REFERENCE + Problem.__name__},
                "examples": {each["code"]: {"value": each} for each in known},
            }
        }
        return
    for media_type, content in response.get("content", {}).items():
        name = content.get("schema", {}).get("$ref", "").removeprefix(REFERENCE)
        if name in examples.EXAMPLES:
            content["example"] = examples.EXAMPLES[name]
        elif media_type in examples.TEXTS:
            content["example"] = examples.TEXTS[media_type]


def _add_models(spec: Document) -> None:
    """Add what is answered without APIFlask's knowing, and examples to what has none."""
    schemas = spec["components"]["schemas"]
    for model in (Problem, UnderWay):
        told = model.model_json_schema(ref_template=REFERENCE + "{model}")
        schemas |= told.pop("$defs", {}) | {model.__name__: told}
    for name, example in examples.EXAMPLES.items():
        if name in schemas:
            schemas[name].setdefault("examples", [example])
    used = set(re.findall(f'"{REFERENCE}([^"]+)"', json.dumps(spec)))
    for unused in schemas.keys() - used:
        del schemas[unused]


def _show_requests(spec: Document) -> None:
    """Put a model's examples where requests are described, too."""
    for _, _, operation in operations(spec):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = content["schema"].get("$ref", "").removeprefix(REFERENCE)
            if name:
                known = spec["components"]["schemas"][name]["examples"]
                content["examples"] = {f"{n}": {"value": each} for n, each in enumerate(known, 1)}


def _view(app: APIFlask, method: str, path: str) -> Any:
    for rule in app.url_map.iter_rules():
        served = rule.rule.replace("<", "{").replace(">", "}") == path
        if served and method.upper() in (rule.methods or ()):
            return app.view_functions[rule.endpoint]
    return None


def _served(summary: str, media_type: str) -> Document:
    content = {media_type: {"schema": {"type": "object"}}}
    response = {"description": "As it is now.", "content": content}
    return {"get": {"summary": summary, "tags": ["Page"], "responses": {"200": response}}}
