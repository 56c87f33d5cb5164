"""OpenAPI at `/openapi.json`, and a page to read it at `/docs` that needs no script."""

from typing import Any

from apiflask import APIFlask
from flask import render_template_string

from api.errors import RETRY_AFTER_S
from api.schemas import Problem

DESCRIPTION = """A customer's message goes in, a reply comes out, whatever dies in between.

Errors are RFC 9457 problem documents with a stable `code`. A 503 means that it is unknown
whether a request was accepted: send it again with the same `Idempotency-Key`."""

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {
        "type": "string",
        "description": "A quoted string of the caller's choice: a repetition with the same key "
        "and body has no second effect.",
    },
}

# Bodies that are read by hand, since no model tells all that may be in them.
BODIES = {
    ("put", "/api/workflows/{workflow_id}"): (
        "A workflow definition; docs/workflows.md is its reference. Also as application/yaml.",
        {
            "id": "greet",
            "steps": [
                {"id": "wait", "delay": {"for": "1h"}},
                {"id": "report", "task": "housekeeping_report"},
            ],
        },
    ),
    ("post", "/api/workflows/runs/{run_id}/callbacks/{name}"): (
        "What the run goes on with.",
        {"approved": True},
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
        _add_problems(spec)
        return spec

    @app.get("/docs")
    @app.doc(hide=True)
    def docs() -> str:
        return render_template_string(PAGE, spec=app.spec)


def _add_problems(spec: dict[str, Any]) -> None:
    """What APIFlask cannot be told: that errors are problem documents, and the 202 of a chat."""
    schemas = spec["components"]["schemas"]
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs") | {"Problem": problem}
    for unused in ("HTTPError", "ValidationError"):
        schemas.pop(unused, None)
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            if (method, path) in BODIES:
                told, example = BODIES[(method, path)]
                schema = {"type": "object", "description": told}
                body = {"schema": schema, "example": example}
                operation["requestBody"] = {"content": {"application/json": body}}
            if "requestBody" in operation:
                operation["requestBody"]["required"] = True
                operation["parameters"].append(IDEMPOTENCY_KEY)
            for status, response in responses.items():
                if int(status) >= 400:
                    response["content"] = content
                elif status == "202" and "200" in responses:
                    response["content"] = responses["200"]["content"]
                if status == "202":
                    response["headers"] = {"Location": {"schema": {"type": "string"}}}
                if int(status) in RETRY_AFTER_S:
                    response["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
