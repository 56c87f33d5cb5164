"""Every error leaves as a problem document that tells what is needed, and nothing else."""

import io
import json

import pytest
from apiflask import APIFlask
from pydantic import BaseModel, ConfigDict
from structlog.testing import capture_logs

from api import errors, inputs
from orchestrator.errors import (
    IdempotencyKeyReused,
    InvalidPayload,
    NoCapableAgent,
    OrchestratorError,
    StoreUnavailable,
    TaskIsFinal,
    TaskNotFound,
    TooManyWaiting,
)

SECRET = "my number is 099123456"


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    number: int
    names: list[str] = []


def door(error: Exception | None = None):
    app = APIFlask("test", json_errors=False)
    app.config["MAX_CONTENT_LENGTH"] = inputs.MAX_BODY_BYTES + 1
    errors.register(app)

    @app.get("/boom")
    def boom() -> str:
        if error is not None:
            raise error
        return "fine"

    @app.post("/body")
    @app.input(Body)
    def body(json_data: Body) -> dict[str, int]:
        return {"number": json_data.number}

    return app.test_client()


def problem(response) -> dict:
    assert response.content_type == "application/problem+json"
    document = json.loads(response.text)
    assert document["status"] == response.status_code
    assert document["type"] == f"urn:agent-orchestrator:problem:{document['code']}"
    assert {"title", "detail", "instance", "request_id"} <= document.keys()
    return document


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Malformed(), 400),
        (errors.Unauthenticated(), 401),
        (errors.Forbidden(), 403),
        (TaskNotFound(), 404),
        (TaskIsFinal(), 409),
        (errors.WrongContentType(), 415),
        (InvalidPayload(errors=[]), 422),
        (NoCapableAgent(), 422),
        (IdempotencyKeyReused(), 422),
        (TooManyWaiting(), 429),
        (errors.TaskCancelled(), 500),
        (OrchestratorError(), 500),
        (StoreUnavailable(), 503),
        (errors.ChatUnstaffed(), 503),
    ],
)
def test_each_code_has_its_status(error, status):
    response = door(error).get("/boom")
    assert response.status_code == status
    assert problem(response)["code"] == error.code
    assert ("Retry-After" in response.headers) == (status in (429, 503))
    assert ("WWW-Authenticate" in response.headers) == (status == 401)


def test_facts_are_members_and_do_not_displace_the_standard_ones():
    error = NoCapableAgent("Nobody.", capabilities=["flying"], status="mine", code="mine")
    document = problem(door(error).get("/boom"))
    assert document["capabilities"] == ["flying"]
    assert (document["status"], document["code"]) == (422, "no_capable_agent")


def test_an_unexpected_error_tells_nothing_and_is_logged_by_its_place():
    with capture_logs() as logged:
        response = door(ValueError(SECRET)).get("/boom")
    assert problem(response)["code"] == "internal_error"
    assert "ValueError" not in response.text
    assert "Traceback" not in response.text
    assert SECRET not in response.text
    [event] = logged
    assert (event["event"], event["error"]) == ("http.unexpected", "ValueError")
    assert event["where"][-1].endswith(" boom")
    assert SECRET not in str(logged)


def test_what_flask_refuses_is_a_problem_too():
    client = door()
    assert problem(client.get("/nowhere"))["code"] == "not_found"
    wrong_method = client.delete("/boom")
    assert problem(wrong_method)["code"] == "method_not_allowed"
    assert wrong_method.headers["Allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_may_have_64_kb_and_no_more(declared):
    def post(length: int):
        raw = b'{"number": 1}'.ljust(length)
        if declared:
            return door().post("/body", data=raw, content_type="application/json")
        # As chunks: gunicorn tells that it ends them.
        environ = {"wsgi.input_terminated": True, "wsgi.input": io.BytesIO(raw)}
        return door().post("/body", content_type="application/json", environ_overrides=environ)

    assert post(65_536).json == {"number": 1}
    for length in (65_537, 65_538, 10_000_000):
        refused = post(length)
        assert refused.status_code == 413
        assert problem(refused)["code"] == "body_too_large"


def test_the_instance_is_the_path_escaped():
    assert problem(door().get("/<b>no</b>"))["instance"] == "/%3Cb%3Eno%3C/b%3E"


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"number": "5"}, ["/number"]),
        ({}, ["/number"]),
        ({"number": 1, "names": ["a", 2]}, ["/names/1"]),
        ({"number": 1, "na/me": 2}, ["/na~1me"]),
        ([], [""]),
    ],
)
def test_invalid_fields_are_pointed_at_and_not_quoted(body, pointers):
    response = door().post("/body", json=body)
    assert response.status_code == 422
    assert [error["pointer"] for error in problem(response)["errors"]] == pointers


def test_a_refused_value_is_not_repeated():
    assert SECRET not in door().post("/body", json={"number": SECRET}).text


def test_a_flood_of_errors_is_cut():
    body = {"number": 1} | {f"unknown{n}": 1 for n in range(500)}
    assert len(problem(door().post("/body", json=body))["errors"]) == errors.ERRORS_SHOWN
