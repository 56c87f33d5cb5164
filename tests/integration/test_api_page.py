"""The chat page: three files under a strict policy, and whose page it is."""

import gzip
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from agents.quote.agent import agent
from api.app import create_app
from orchestrator.engine import Engine
from orchestrator.errors import BadSettings
from orchestrator.settings import Settings

FILES = ("/", "/chat.css", "/chat.js")


@pytest.fixture
def client(engine: Engine) -> FlaskClient:
    return create_app(engine).test_client()


@pytest.mark.parametrize("path", FILES)
def test_nothing_inline_and_nothing_from_elsewhere_can_run(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    again = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_the_page_needs_nothing_that_its_policy_forbids(client: FlaskClient) -> None:
    page = client.get("/").text
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=|https?://|javascript:", page)
    script = client.get("/chat.js").text
    for markup in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert markup not in script


def test_the_page_speaks_as_the_client_that_it_is_given(settings: Settings) -> None:
    keys = SecretStr('web:key-of-the-"web"-0123456789')
    engine = Engine(settings.model_copy(update={"client_keys": keys, "page_client": "web"}))
    page = create_app(engine).test_client().get("/").text
    engine.close()
    assert 'data-key="key-of-the-&quot;web&quot;-0123456789"' in page


def test_the_business_is_the_one_that_its_file_names(
    client: FlaskClient, desk_of: Callable[..., Any]
) -> None:
    assert client.get("/api/business").status_code == 404
    desk_of(agent)
    business = client.get("/api/business").json
    assert (business["name"], business["colour"]) == ("Panelia", "#0f4c5c")
    logo = client.get("/api/business/logo")
    assert (logo.status_code, logo.content_type) == (200, "image/png")
    assert logo.data.startswith(b"\x89PNG")


def test_a_business_file_that_is_wrong_ends_the_start(settings: Settings, tmp_path: Any) -> None:
    file = tmp_path / "business.yaml"
    file.write_text("name: [a\n")
    engine = Engine(settings.model_copy(update={"business_file": file}))
    with pytest.raises(BadSettings, match=r"business\.yaml"):
        engine.init([agent])
    engine.database.client.drop_database(settings.mongodb_database)
    engine.close()


def test_the_page_of_workflows_runs_no_script_but_ours_and_the_drawing_librarys(
    client: FlaskClient,
) -> None:
    answer = client.get("/workflows")
    policy = answer.headers["Content-Security-Policy"]
    # Drawings are styled inline; that is all that this page may do beyond the other.
    assert "script-src 'self';" in policy
    assert policy.count("unsafe") == 1
    assert "style-src 'self' 'unsafe-inline'" in policy
    assert not re.search(
        r"<script(?![^>]* src=)|\son\w+=|\sstyle=|https?://|javascript:", answer.text
    )
    script = client.get("/workflows.js").text
    for markup in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert markup not in script
    assert client.get("/workflows.css").content_type.startswith("text/css")


def test_the_drawing_library_is_sent_packed_to_who_can_unpack_it(client: FlaskClient) -> None:
    packed = client.get("/mermaid.js", headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers["Content-Encoding"] == "gzip"
    plain = client.get("/mermaid.js", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) < len(plain.data) / 3
    again = client.get("/mermaid.js", headers={"If-None-Match": packed.headers["ETag"]})
    assert again.status_code == 304
