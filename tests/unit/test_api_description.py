"""The API's description is whole: each route, each status with an example that is as it says."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from apiflask import APIFlask
from pydantic import BaseModel

from api import schemas
from api.app import create_app
from api.documentation import KEYED, operations
from api.errors import HTTP_CODES, UNREADABLE
from orchestrator.engine import Engine
from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings

Document = dict[str, Any]


@pytest.fixture(scope="module")
def app() -> Iterator[APIFlask]:
    engine = Engine(Settings())
    yield create_app(engine)
    engine.close()


@pytest.fixture(scope="module")
def spec(app: APIFlask) -> Document:
    """As it goes over the wire."""
    return json.loads(json.dumps(app.spec))


def bodies(spec: Document) -> Iterator[tuple[str, Document]]:
    """Every content of every request and response, and where it is."""
    for method, path, operation in operations(spec):
        where = f"{method.upper()} {path}"
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{where} asks {media}", content
        for status, response in operation["responses"].items():
            for media, content in response.get("content", {}).items():
                yield f"{where} {status} {media}", content


def examples_of(content: Document) -> list[Any]:
    several = [each["value"] for each in content.get("examples", {}).values()]
    return several or ([content["example"]] if "example" in content else [])


def refusal(spec: Document, schema: Document, value: Any) -> str | None:
    """Why a value does not fit a schema."""
    whole = schema | {"components": spec["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    return next((f"{each.instance_path}: {each.message}" for each in validator.iter_errors(value)),
                None)  # fmt: skip


def test_what_is_served_is_described_and_what_is_described_is_served(app, spec):
    served = {
        (method.lower(), rule.rule.replace("<", "{").replace(">", "}"))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert {(method, path) for method, path, _ in operations(spec)} == served


def test_every_parameter_of_a_path_is_described(spec):
    for method, path, operation in operations(spec):
        named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), (method, path)


def test_every_route_says_what_it_is_who_may_and_what_may_go_wrong(spec):
    for method, path, operation in operations(spec):
        where = (method, path)
        assert operation["summary"], where
        assert operation["description"], where
        statuses = set(operation["responses"])
        assert statuses & {"200", "201", "202"}, where
        assert "400" in statuses, where
        if "requestBody" in operation:
            assert {"400", "413", "422"} <= statuses | ({"422"} if "whatsapp" in path else set())
        if {} not in operation.get("security", [{}]):
            assert "401" in statuses, where
        if operation.get("security") == [{"operator": []}]:
            assert {"401", "403"} <= statuses, where
        for status, response in operation["responses"].items():
            assert response["description"], where
            assert ("content" in response) == (status not in ("204", "304")), (*where, status)


BINARY = {"type": "string", "contentEncoding": "binary"}
# Files of pages; and the description itself would have to be its own example.
FILES = re.compile(r"GET /(\S+ 200 text/(css|javascript)|openapi\.json 200 .*)")


def test_every_body_has_examples_and_they_fit(spec):
    for where, content in bodies(spec):
        if content["schema"] == BINARY or FILES.match(where):
            continue
        found = examples_of(content)
        assert found, where
        for example in found:
            assert refusal(spec, content["schema"], example) is None, where


def test_an_example_that_does_not_fit_is_noticed(spec):
    schema = {"$ref": "#/components/schemas/Task"}
    [task] = spec["components"]["schemas"]["Task"]["examples"]
    assert refusal(spec, schema, task) is None
    assert refusal(spec, schema, task | {"state": "lost"})
    assert refusal(spec, schema, task | {"created_at": "yesterday"})
    assert refusal(spec, schema, {name: task[name] for name in task if name != "id"})


def test_the_models_examples_fit_the_models(spec):
    for name, schema in spec["components"]["schemas"].items():
        model = getattr(schemas, name, None)
        if isinstance(model, type) and issubclass(model, BaseModel):
            for example in schema.get("examples", []):
                # Bodies are strict, and JSON is what they are strict about.
                model.model_validate_json(json.dumps(example))


def test_examples_of_parameters_fit(spec):
    for method, path, operation in operations(spec):
        for parameter in operation["parameters"]:
            if "example" in parameter:
                why = refusal(spec, parameter["schema"], parameter["example"])
                assert why is None, (method, path, parameter["name"], why)


def test_problems_carry_their_status_and_a_code_that_there_is(spec):
    def codes(kind: type[OrchestratorError]) -> set[str]:
        return {kind.code}.union(*(codes(sub) for sub in kind.__subclasses__()))

    known = codes(OrchestratorError) | set(HTTP_CODES.values()) | {UNREADABLE}
    for method, path, operation in operations(spec):
        for status, response in operation["responses"].items():
            content = response.get("content", {}).get("application/problem+json")
            assert (content is not None) == (int(status) >= 400)
            for example in examples_of(content or {}):
                assert (str(example["status"]), example["code"] in known) == (status, True)
                assert "{" not in example["instance"], (method, path)


def test_names_in_the_description_are_there(spec):
    text = json.dumps(spec)
    referred = set(re.findall(r"#/components/schemas/([^\"]+)", text))
    assert referred == spec["components"]["schemas"].keys()
    assert {(method, path) for method, path, _ in operations(spec)} >= KEYED
    schemes = spec["components"]["securitySchemes"]
    assert {
        name for _, _, each in operations(spec) for one in each.get("security", []) for name in one
    } == schemes.keys()


def test_a_desk_whose_clients_have_keys_asks_everybody_for_one():
    engine = Engine(Settings(client_keys="web:key-of-the-web-0123456789"))
    spec = create_app(engine).spec
    engine.close()
    assert {} not in spec["paths"]["/chat/process"]["post"]["security"]
    assert {} in spec["paths"]["/api/quotes/{quote_id}"]["get"]["security"]
