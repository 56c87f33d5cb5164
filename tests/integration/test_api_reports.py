"""Reports over HTTP and on the command line: made once, in every form, told to who subscribes."""

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pypdf import PdfReader

from agents.analytics.agent import agent
from agents.analytics.desk import desk_of as analytics_of
from api.app import create_app
from orchestrator.engine import Engine
from orchestrator.settings import Settings

OPERATOR = {"Authorization": "Bearer operator-token-0123456789"}
HOOK = {"wants": "daily", "channel": "webhook", "recipient": "https://owner.example/in"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "operator_token": SecretStr("operator-token-0123456789"),
            "client_keys": SecretStr("web:key-of-the-web-0123456789"),
        }
    )


@pytest.fixture
def at_work(workers: Callable[..., Any]) -> Iterator[Any]:
    """The analytics agent's worker, in a thread of its own."""
    staff, stopped = workers(agent), threading.Event()

    def run() -> None:
        while not stopped.wait(0.01):
            staff.work()

    thread = threading.Thread(target=run)
    thread.start()
    yield staff
    stopped.set()
    thread.join()


@pytest.fixture
def client(engine: Engine) -> Any:
    return create_app(engine).test_client()


def make(client: Any, **body: Any) -> Any:
    asked = {"since": (dt.datetime.now(dt.UTC) - dt.timedelta(days=3)).isoformat()}
    return client.post("/api/reports", json=body or asked, headers=OPERATOR)


def test_a_report_is_made_listed_read_and_downloaded(client: Any, at_work: Any) -> None:
    made = make(client)
    assert (made.status_code, made.json["kind"]) == (201, "asked")
    assert made.headers["Location"] == f"/api/reports/{made.json['id']}"
    assert made.json["figures"]["measures"]["messages"]["value"] == 0
    read = client.get(made.headers["Location"], headers=OPERATOR)
    assert read.json == made.json
    listed = client.get("/api/reports", headers=OPERATOR).json["reports"]
    assert [(each["id"], "figures" in each) for each in listed] == [(made.json["id"], False)]
    assert client.get("/api/reports?kind=daily", headers=OPERATOR).json["reports"] == []
    for language, title in (("es", "Informe de Panelia"), ("en", "Report of Panelia")):
        page = client.get(f"{made.json['page']}?language={language}", headers=OPERATOR)
        assert (page.status_code, page.mimetype) == (200, "text/html")
        assert title in page.text
        assert "<script" not in page.text
        file = client.get(f"{made.json['pdf']}?language={language}", headers=OPERATOR)
        assert file.mimetype == "application/pdf"
        assert title in PdfReader(BytesIO(file.data)).pages[0].extract_text()
    csv = client.get(made.json["csv"], headers=OPERATOR)
    assert csv.text.startswith("date,measure,")
    again = client.get(made.json["csv"], headers=OPERATOR | {"If-None-Match": csv.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "asked"},
        {"kind": "daily", "since": "2026-01-01T00:00:00Z"},
        {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"since": "2026-01-02T00:00:00"},
        {"since": "2020-01-01T00:00:00Z"},
        {"since": "2999-01-01T00:00:00Z"},
        {"since": "2026-01-02T00:00:00Z", "colour": "red"},
    ],
)
def test_a_report_that_cannot_be_is_refused(
    client: Any, at_work: Any, body: dict[str, Any]
) -> None:
    refused = make(client, **body)
    assert (refused.status_code, refused.mimetype) == (422, "application/problem+json")


def test_reports_are_the_operators(client: Any, at_work: Any) -> None:
    key = {"X-API-Key": "key-of-the-web-0123456789"}
    paths = ("", "/x", "/x.pdf", "/x.html", "/x.csv", "/subscriptions")
    for path in paths:
        assert client.get(f"/api/reports{path}").status_code == 401
        assert client.get(f"/api/reports{path}", headers=key).status_code == 403
    for path in paths[1:5]:
        assert client.get(f"/api/reports{path}", headers=OPERATOR).status_code == 404


def test_a_desk_without_analytics_says_so(client: Any) -> None:
    assert client.get("/api/reports", headers=OPERATOR).json == {"reports": []}
    unstaffed = make(client)
    assert (unstaffed.status_code, unstaffed.json["code"]) == (503, "reports_unstaffed")


def test_who_subscribes_is_told_once_of_each_report(
    client: Any, at_work: Any, engine: Engine
) -> None:
    def subscribe(**body: Any) -> Any:
        return client.post("/api/reports/subscriptions", json=body, headers=OPERATOR)

    first = subscribe(**HOOK)
    assert (first.status_code, first.json["recipient"]) == (201, HOOK["recipient"])
    assert subscribe(**HOOK).json["id"] == first.json["id"]
    subscribe(**HOOK | {"channel": "whatsapp", "recipient": "099 123 456", "language": "en"})
    weekly = subscribe(**HOOK | {"wants": "weekly"})
    listed = client.get("/api/reports/subscriptions", headers=OPERATOR).json["subscriptions"]
    assert len(listed) == 3
    made = make(client, kind="daily")
    assert made.status_code == 201
    report = engine.store.get(made.json["id"])
    # As after a worker that died before it could say that it was done.
    analytics_of(engine).make_report(
        report, "daily", made_at(made.json["since"]), made_at(made.json["until"])
    )
    entries = list(engine.database["outbox"].find({}))
    assert sorted(each["recipient"] for each in entries) == ["+59899123456", HOOK["recipient"]]
    hooked = next(each for each in entries if each["channel"] == "webhook")
    assert hooked["body"]["type"] == "report.ready"
    assert hooked["body"]["data"]["report_id"] == report.id
    assert "Mensajes: 0" in hooked["body"]["data"]["text"]
    path = f"/api/reports/subscriptions/{weekly.json['id']}/remove"
    assert client.post(path, headers=OPERATOR).json == {"removed": True}
    assert client.post(path, headers=OPERATOR).json == {"removed": False}


def made_at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    "body",
    [
        HOOK | {"recipient": "ftp://owner.example"},
        HOOK | {"recipient": ""},
        HOOK | {"channel": "whatsapp", "recipient": "none"},
        HOOK | {"channel": "pigeon"},
        HOOK | {"wants": "hourly"},
    ],
)
def test_a_subscription_that_reaches_nobody_is_refused(
    client: Any, at_work: Any, body: dict[str, Any]
) -> None:
    refused = client.post("/api/reports/subscriptions", json=body, headers=OPERATOR)
    assert refused.status_code == 422


def test_reports_go_with_their_files_when_they_are_over(
    client: Any, at_work: Any, engine: Engine, advance: Callable[[float], None]
) -> None:
    made = make(client)
    client.get(made.json["csv"], headers=OPERATOR)
    assert engine.database["files"].count_documents({}) == 1
    reports = analytics_of(engine).reports
    assert reports.let_go() == 0
    advance((engine.settings.analytics_retention_days + 1) * 86400)
    assert reports.let_go() == 1
    assert engine.database["files"].count_documents({}) == 0
    assert engine.database["reports"].count_documents({}) == 0


def test_the_regular_reports_have_their_times(at_work: Any, engine: Engine) -> None:
    for kind in ("daily", "weekly"):
        timer = engine.timers.get(f"report.{kind}")
        assert (timer.request.type, timer.request.payload) == ("make_report", {"kind": kind})
        assert timer.zone == engine.settings.business_zone


def test_the_command_line_makes_a_report(
    orchestrator: Callable[..., Any], at_work: Any, tmp_path: Path
) -> None:
    file = tmp_path / "report.pdf"
    shown, as_json, refused, wrong = orchestrator(
        ["report", "--since", "7d", "--out", str(file)],
        ["report", "--since", "2d", "--until", "1d", "--json"],
        ["report", "--out", "report.docx"],
        ["report", "--until", "soon"],
    )
    assert (shown.code, shown.err) == (0, "")
    assert "messages" in shown.out
    assert file.read_bytes().startswith(b"%PDF")
    assert '"figures"' in as_json.out
    assert (refused.code, wrong.code) == (1, 1)
    assert "--until" in wrong.err
