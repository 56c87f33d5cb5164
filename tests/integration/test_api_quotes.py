"""Quotes over HTTP: priced by the quote agent, seen by those who may, answered once."""

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from pydantic import SecretStr
from pypdf import PdfReader

from agents.quote.agent import agent
from api.app import create_app
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.worker import AttemptFailed, Runtime, StopRequest

TOKEN = "operator-token-0123456789"
KEYS = {"web": "key-of-the-web-0123456789", "n8n": "key-of-n8n-0123456789"}
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
WEB, N8N = ({"X-API-Key": key} for key in KEYS.values())
ITEM = {"product": "isodec", "thickness_mm": 100, "length_m": 10, "width_m": 5}


class Desk:
    """A front door, and a quote agent's worker without its broker."""

    def __init__(self, settings: Settings) -> None:
        changes = {
            "operator_token": SecretStr(TOKEN),
            "client_keys": SecretStr(",".join(f"{name}:{key}" for name, key in KEYS.items())),
        }
        self.engine = Engine(settings.model_copy(update=changes))
        self.runtime = Runtime(
            settings,
            [agent],
            "quote@test",
            {agent.id: 5},
            watches_consumer=False,
            stop=StopRequest(),
        )
        self.runtime.engine.init([agent])
        self.client = create_app(self.engine).test_client()
        self.quotes = self.engine.database["quotes"]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def work(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self.runtime.engine.close()
        self.engine.close()

    def create(self, headers: dict[str, str] = WEB, **body: Any) -> Any:
        return self.client.post("/api/quotes", json={"items": [ITEM]} | body, headers=headers)

    def session(self, session_id: str, caller: str) -> str:
        self.engine.sessions.open(session_id, None, caller=caller, channel="web", trusted=True)
        return session_id

    def tasks(self, task_type: str) -> int:
        return int(self.engine.database["tasks"].count_documents({"type": task_type}))

    def _run(self) -> None:
        tasks = self.runtime.engine.database["tasks"]
        while not self._stopped.wait(0.01):
            for task in tasks.find({"state": "queued"}):
                with contextlib.suppress(AttemptFailed):
                    self.runtime.execute(
                        agent,
                        agent.task_types[task["type"]],
                        task["_id"],
                        task["fence"],
                        alone=False,
                    )


@pytest.fixture
def idle_desk(settings: Settings) -> Iterator[Desk]:
    desk = Desk(settings)
    yield desk
    desk.engine.database.client.drop_database(settings.mongodb_database)
    desk.stop()


@pytest.fixture
def desk(idle_desk: Desk) -> Desk:
    idle_desk.work()
    return idle_desk


def test_a_quote_is_priced_directly(desk: Desk) -> None:
    answer = desk.create(customer={"name": "Ana", "phone": "099123456"}, language="en")
    assert answer.status_code == 201, answer.json
    quote = answer.json
    assert (quote["total"], quote["tax"], quote["currency"]) == ("7500.00", "1352.46", "UYU")
    assert quote["items"][0]["description"] == "Isodec 100 mm, 10 × 5 m, white"
    assert (quote["state"], quote["version"], quote["superseded_by"]) == ("draft", 1, None)
    assert quote["customer"] == {"name": "Ana", "phone": "+59899123456"}
    assert answer.headers["Location"] == f"/api/quotes/{quote['id']}"
    # Whoever has the id may read it.
    assert desk.client.get(answer.headers["Location"]).json == quote


def test_the_same_key_makes_one_quote(desk: Desk) -> None:
    headers = WEB | {"Idempotency-Key": '"k1"'}
    first, second = (desk.create(headers) for _ in range(2))
    assert first.json == second.json
    assert desk.quotes.count_documents({}) == 1
    other = desk.create(headers, language="en")
    assert (other.status_code, other.json["code"]) == (422, "idempotency_key_reused")


def test_what_has_no_price_names_the_field_and_what_is_possible(desk: Desk) -> None:
    wrong = ITEM | {"thickness_mm": 60, "colour": "verde", "length_m": 0}
    answer = desk.create(items=[ITEM, wrong])
    assert (answer.status_code, answer.json["code"]) == (422, "quote_refused")
    told = {each["pointer"]: each for each in answer.json["errors"]}
    assert told["/items/1/thickness_mm"]["allowed"] == [50, 75, 100, 125, 150]
    assert (
        told["/items/1/thickness_mm"]["detail"] == "is not made; there are: 50, 75, 100, 125, 150"
    )
    assert told["/items/1/colour"]["allowed"] == ["blanco", "gris", "personalizado"]
    assert told["/items/1/length_m"]["detail"] == "must be more than 0 and at most 1000"
    assert "verde" not in answer.text


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"items": []}, "/items"),
        ({"items": [ITEM] * 61}, "/items"),
        ({"items": [{"product": "isodec"}]}, "/items/0/thickness_mm"),
        ({"items": [ITEM | {"discount": 1}]}, "/items/0/discount"),
        ({"customer": {"phone": "12"}}, "/customer/phone"),
        ({"session_id": "nobody's"}, "/session_id"),
        ({"supersedes": "none"}, "/supersedes"),
        ({"language": "fr"}, "/language"),
    ],
)
def test_what_is_no_request_names_the_field(
    idle_desk: Desk, body: dict[str, Any], pointer: str
) -> None:
    answer = idle_desk.create(**body)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"] == pointer
    assert idle_desk.engine.database["tasks"].count_documents({}) == 0


def test_what_takes_longer_is_accepted_and_can_be_waited_for(idle_desk: Desk) -> None:
    answer = idle_desk.client.post("/api/quotes?wait=0", json={"items": [ITEM]}, headers=WEB)
    assert answer.status_code == 202
    idle_desk.work()
    task = idle_desk.client.get(f"{answer.headers['Location']}?wait=20", headers=WEB).json
    assert task["result"]["total"] == "7500.00"


def test_a_correction_supersedes_and_the_old_one_is_closed(desk: Desk) -> None:
    first = desk.create().json
    second = desk.create(items=[ITEM | {"thickness_mm": 150}], supersedes=first["id"]).json
    assert (second["code"], second["version"]) == (f"{first['code']}-2", 2)
    old = desk.client.get(f"/api/quotes/{first['id']}").json
    assert old["superseded_by"] == second["id"]
    refused = desk.client.post(f"/api/quotes/{first['id']}/accept")
    assert (refused.status_code, refused.json["code"]) == (409, "quote_closed")
    assert refused.json["standing"] == "superseded"
    listed = desk.client.get(f"/api/quotes?number={first['number']}", headers=OPERATOR).json
    assert [each["version"] for each in listed["quotes"]] == [2, 1]


def test_a_quote_is_accepted_once_by_whoever_has_its_link(desk: Desk) -> None:
    quote = desk.create().json
    for _ in range(2):
        answer = desk.client.post(f"/api/quotes/{quote['id']}/accept")
        assert (answer.status_code, answer.json["state"]) == (200, "accepted")
    assert desk.tasks("accept_quote") == 1
    refused = desk.client.post(f"/api/quotes/{quote['id']}/reject")
    assert (refused.status_code, refused.json["standing"]) == (409, "accepted")
    assert desk.client.post("/api/quotes/none/accept").status_code == 404
    # Its code is said on the phone, and opens nothing.
    assert desk.client.get(f"/api/quotes/{quote['code']}").status_code == 404


def test_a_rejected_quote_and_an_expired_one_cannot_be_accepted(desk: Desk) -> None:
    rejected, expired = desk.create().json, desk.create().json
    answer = desk.client.post(f"/api/quotes/{rejected['id']}/reject")
    assert answer.json["state"] == "rejected"
    past = desk.engine.clock.now() - timedelta(seconds=1)
    desk.quotes.update_one({"_id": expired["id"]}, {"$set": {"valid_until": past}})
    for quote, standing in ((rejected, "rejected"), (expired, "expired")):
        refused = desk.client.post(f"/api/quotes/{quote['id']}/accept")
        assert (refused.status_code, refused.json["standing"]) == (409, standing)
    assert desk.tasks("accept_quote") == 0


def test_the_pdf_is_made_once_and_not_sent_twice(desk: Desk) -> None:
    quote = desk.create(customer={"name": "Ana"}).json
    answer = desk.client.get(quote["pdf"])
    assert answer.status_code == 200
    assert answer.content_type == "application/pdf"
    assert f'filename="{quote["code"]}.pdf"' in answer.headers["Content-Disposition"]
    text = PdfReader(BytesIO(answer.data)).pages[0].extract_text()
    assert quote["code"] in text
    assert "Ana" in text
    again = desk.client.get(quote["pdf"], headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert desk.tasks("render_quote") == 1
    assert desk.client.get("/api/quotes/none.pdf").status_code == 404


def test_quotes_are_listed_to_those_who_may(desk: Desk) -> None:
    mine = desk.session("s-web", "client:web")
    made = [desk.create(session_id=mine).json for _ in range(3)]
    desk.create(N8N)
    desk.client.post(f"/api/quotes/{made[0]['id']}/accept")

    def listed(query: str, headers: dict[str, str]) -> list[str]:
        answer = desk.client.get(f"/api/quotes?{query}", headers=headers)
        assert answer.status_code == 200, answer.json
        return [each["id"] for each in answer.json["quotes"]]

    newest_first = [each["id"] for each in reversed(made)]
    assert listed("session_id=s-web", WEB) == newest_first
    assert listed("session_id=s-web&state=accepted", WEB) == [made[0]["id"]]
    assert len(listed("", OPERATOR)) == 4
    assert listed("state=accepted", OPERATOR) == [made[0]["id"]]
    later = (desk.engine.clock.now() + timedelta(minutes=1)).isoformat().replace("+", "%2B")
    assert listed(f"since={later}", OPERATOR) == []
    assert desk.client.get("/api/quotes", headers=WEB).status_code == 403
    assert desk.client.get("/api/quotes?session_id=s-web", headers=N8N).status_code == 404
    assert desk.client.get("/api/quotes?session_id=s-web").status_code == 401
    refused = desk.client.get("/api/quotes?state=open", headers=OPERATOR)
    assert refused.json["errors"][0]["parameter"] == "state"


def test_a_long_list_is_read_page_by_page(desk: Desk) -> None:
    made = [desk.create().json["id"] for _ in range(5)]
    path, seen = "/api/quotes?page_size=2", []
    while path:
        answer = desk.client.get(path, headers=OPERATOR)
        seen += [each["id"] for each in answer.json["quotes"]]
        link = answer.headers.get("Link")
        path = link.partition("<")[2].partition(">")[0] if link else None
        assert (path is None) == ("next_page_token" not in answer.json)
    assert seen == made[::-1]


def test_without_a_quote_agent_nothing_is_promised(settings: Settings, engine: Engine) -> None:
    client = create_app(engine).test_client()
    answer = client.post("/api/quotes", json={"items": [ITEM]})
    assert (answer.status_code, answer.json["code"]) == (503, "quotes_unstaffed")
    assert client.get("/api/quotes/none").status_code == 404
