"""Conversations over HTTP: who sees them, what was said, and people who answer."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from pydantic import SecretStr

from api.app import create_app
from orchestrator.context import Writer, ordering_key
from orchestrator.engine import Engine
from orchestrator.outbox import Outgoing
from orchestrator.tasks import Request

TOKEN = "operator-token-0123456789"
KEYS = {"web": "key-of-the-web-0123456789", "page": "key-of-the-page-0123456"}
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
WEB = {"X-API-Key": KEYS["web"]}
PAGE = {"X-API-Key": KEYS["page"]}
BOT = Writer("conversation_agent", frozenset({"name"}))


class Desk:
    """A front door, and an engine beside it that does what a worker does."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.app: Flask = create_app(engine)

    def say(self, session_id: str, text: str, caller: str = "client:web", **more: object) -> None:
        self.engine.sessions.open(
            session_id, None, caller=caller, channel=str(more.get("channel", "web")), trusted=True
        )
        request = Request("t", {"message": text}, ordering_key=ordering_key(session_id))
        self.task = self.engine.store.accept(request, agent="a", queue="q", decision={}, epoch=0)[0]

    def answer(self, session_id: str, text: str, **more: object) -> None:
        burst = self.engine.sessions.begin(session_id, self.task)
        reply = {"text": text, "intent": "general", "actions": ["yes"]}
        self.engine.sessions.commit(burst, writer=BOT, reply=reply, **more)

    def get(self, path: str, who: dict[str, str] = OPERATOR, status: int = 200):
        response = self.app.test_client().get(path, headers=who)
        assert response.status_code == status, response.text
        return response.get_json(force=True)

    def post(self, path: str, body: object = None, status: int = 200, **headers: str):
        sent = OPERATOR | {name.replace("_", "-"): value for name, value in headers.items()}
        client = self.app.test_client()
        response = client.post(path, headers=sent, **({} if body is None else {"json": body}))
        assert response.status_code == status, response.text
        return response.get_json(force=True)


@pytest.fixture
def open_desk(settings) -> Iterator[Callable[..., Desk]]:
    engines: list[Engine] = []

    def opened(**changes: object) -> Desk:
        known = {"operator_token": SecretStr(TOKEN)} | changes
        engines.append(Engine(settings.model_copy(update=known)))
        engines[-1].init([])
        return Desk(engines[-1])

    yield opened
    for engine in engines:
        engine.close()


@pytest.fixture
def desk(open_desk) -> Desk:
    keys = ",".join(f"{name}:{key}" for name, key in KEYS.items())
    return open_desk(client_keys=SecretStr(keys), page_client="page")


# -- reading -----------------------------------------------------------------------------


def test_a_conversation_is_read_with_what_was_said_and_what_is_kept(desk):
    desk.say("s1", "hola")
    desk.answer("s1", "buenas", own={"greeted": True}, shared={"name": "Juan"})
    told = desk.get("/api/sessions/s1")
    assert (told["name"], told["owner"], told["status"]) == ("Juan", "bot", "open")
    assert (told["version"], told["on_busy"]) == (1, "coalesce")
    said = desk.get("/api/sessions/s1/messages")
    assert [(m["n"], m["role"], m["text"]) for m in said["messages"]] == [
        (1, "customer", "hola"),
        (2, "assistant", "buenas"),
    ]
    assert said["messages"][1]["actions"] == ["yes"]
    kept = desk.get("/api/sessions/s1/context")
    assert kept["shared"] == {"name": "Juan"}
    assert kept["agents"] == {"conversation_agent": {"greeted": True}}
    older = desk.get("/api/sessions/s1/context?version=0")
    assert (older["version"], older["current_version"], older["shared"]) == (0, 1, {})
    assert desk.get("/api/sessions/s1/context?version=9", status=404)["code"] == "not_found"


def test_messages_are_paged_and_polled(desk):
    for n in range(5):
        desk.say("s1", f"m{n}")
    path, read = "/api/sessions/s1/messages?page_size=2", []
    while True:
        page = desk.get(path)
        read += [message["text"] for message in page["messages"]]
        if "next_page_token" not in page:
            break
        path = f"/api/sessions/s1/messages?page_size=2&page_token={page['next_page_token']}"
    assert read == [f"m{n}" for n in range(5)]
    newer = desk.get("/api/sessions/s1/messages?after=3")["messages"]
    assert [message["n"] for message in newer] == [4, 5]


def test_existing_clients_read_whole_conversations(desk):
    desk.say("s1", "hola")
    desk.answer("s1", "buenas")
    desk.say("s2", "chau")
    told = desk.get("/conversations")
    assert [each["sessionId"] for each in told] == ["s2", "s1"]
    whole = desk.get("/conversations/s1")
    assert whole == told[1]
    assert [(m["role"], m["content"]) for m in whole["messages"]] == [
        ("user", "hola"),
        ("assistant", "buenas"),
    ]
    assert set(whole) == {"sessionId", "phone", "messages", "createdAt"}
    first = desk.app.test_client().get("/conversations?page_size=1", headers=OPERATOR)
    assert 'rel="next"' in first.headers["Link"]


def test_conversations_are_listed_by_filters_a_page_at_a_time(desk):
    for n in range(5):
        desk.say(f"s{n}", "hola", channel="whatsapp" if n % 2 else "web")
    desk.post("/api/sessions/s1/take", {"by": "Ana"})
    desk.engine.people.close("s2")

    def listed(query: str) -> list[str]:
        found, token = [], ""
        while True:
            page = desk.get(f"/api/sessions?page_size=2{query}{token}")
            found += [each["session_id"] for each in page["sessions"]]
            if "next_page_token" not in page:
                return found
            token = f"&page_token={page['next_page_token']}"

    assert listed("") == ["s4", "s3", "s2", "s1", "s0"]
    assert listed("&channel=whatsapp") == ["s3", "s1"]
    assert listed("&owner=human") == ["s1"]
    assert listed("&status=closed") == ["s2"]
    assert listed("&channel=whatsapp&owner=bot") == ["s3"]
    assert desk.get("/api/sessions?page_token=x", status=422)["errors"]
    assert desk.get("/api/sessions?owner=cat", status=422)["errors"][0]["parameter"] == "owner"


# -- who sees what -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/api/sessions/{}",
        "/api/sessions/{}/messages",
        "/api/sessions/{}/context",
        "/conversations/{}",
    ],
)
def test_a_conversation_is_seen_by_its_own_client_and_the_operator(desk, path):
    desk.say("mine", "hola", "client:web")
    desk.say("of-the-page", "hola", "client:page")
    for who, session_id, status in (
        (OPERATOR, "mine", 200),
        (WEB, "mine", 200),
        (WEB, "of-the-page", 404),
        (WEB, "nobodys", 404),
        (PAGE, "of-the-page", 200),
        (PAGE, "mine", 404),
        ({}, "mine", 401),
    ):
        desk.get(path.format(session_id), who, status)


def test_lists_hold_what_the_caller_may_see(desk):
    desk.say("mine", "hola", "client:web")
    desk.say("other", "hola", "client:page")
    assert [s["session_id"] for s in desk.get("/api/sessions", WEB)["sessions"]] == ["mine"]
    assert [c["sessionId"] for c in desk.get("/conversations", WEB)] == ["mine"]
    assert len(desk.get("/api/sessions")["sessions"]) == 2
    # Everybody has the page's key: it must not list everybody's conversations.
    for path in ("/api/sessions", "/conversations"):
        assert desk.get(path, PAGE, 403)["code"] == "forbidden"
        desk.get(path, {}, 401)


def test_a_program_of_this_machine_sees_its_own_ones(open_desk):
    desk = open_desk()
    desk.say("mine", "hola", "local")
    desk.say("other", "hola", "client:web")
    assert [s["session_id"] for s in desk.get("/api/sessions", {})["sessions"]] == ["mine"]
    desk.get("/api/sessions/other", {}, 404)


def test_only_the_operator_answers_in_the_bots_place(desk):
    desk.say("s1", "hola")
    for path in ("take", "reply", "give-back"):
        for who, status in ((WEB, 403), ({}, 401)):
            response = desk.app.test_client().post(
                f"/api/sessions/s1/{path}", json={"text": "x"}, headers=who
            )
            assert response.status_code == status
    assert desk.get("/api/sessions?waiting=true", WEB, 403)["code"] == "forbidden"
    assert desk.engine.sessions.get("s1").owner == "bot"


# -- a person answers --------------------------------------------------------------------


def test_a_person_takes_replies_and_gives_back(desk):
    desk.say("s1", "quiero una persona")
    desk.answer("s1", "ya te atienden", hand_over=True)
    desk.say("s2", "hola")
    assert [s["session_id"] for s in desk.get("/api/sessions?waiting=true")["sessions"]] == ["s1"]
    assert desk.post("/api/sessions/s1/take", {"by": "Ana"})["taken_by"] == "Ana"
    assert desk.post("/api/sessions/s1/take", {"by": "Ana"})["owner"] == "human"
    assert desk.post("/api/sessions/s1/take", {"by": "Bea"}, 409)["code"] == "session_taken"
    told = desk.post("/api/sessions/s1/reply", {"text": "soy Ana", "by": "Ana"})
    assert told["waiting_since"] is None
    assert desk.get("/api/sessions?waiting=true")["sessions"] == []
    said = desk.get("/api/sessions/s1/messages")["messages"]
    assert (said[-1]["role"], said[-1]["text"], said[-1]["by"]) == ("person", "soy Ana", "Ana")
    assert desk.post("/api/sessions/s1/give-back")["owner"] == "bot"
    refused = desk.post("/api/sessions/s1/reply", {"text": "x"}, 409)
    assert refused["code"] == "session_not_taken"


def test_a_persons_reply_that_is_repeated_under_its_key_is_said_once(desk):
    desk.say("s1", "hola")
    desk.post("/api/sessions/s1/take", {})
    for _ in range(3):
        desk.post("/api/sessions/s1/reply", {"text": "una vez"}, Idempotency_Key='"k"')
    said = desk.get("/api/sessions/s1/messages")["messages"]
    assert [message["text"] for message in said] == ["hola", "una vez"]


def test_taking_over_drops_what_the_bot_has_not_sent(desk):
    desk.say("s1", "hola", channel="whatsapp")
    desk.answer("s1", "buenas", outgoing=[Outgoing("paper", "+59899000001", {"text": "buenas"})])
    desk.post("/api/sessions/s1/take", {})
    [entry] = desk.engine.database["outbox"].find()
    assert (entry["state"], entry["reason"]["code"]) == ("dropped", "person_took_over")


def test_an_operator_closes_a_conversation_and_sets_what_busy_means(desk):
    desk.say("s1", "hola")
    client = desk.app.test_client()
    changed = client.patch("/api/sessions/s1", json={"on_busy": "enqueue"}, headers=OPERATOR)
    assert changed.json["on_busy"] == "enqueue"
    closed = client.patch("/api/sessions/s1", json={"status": "closed"}, headers=OPERATOR)
    assert closed.json["status"] == "closed"
    assert desk.post("/api/sessions/s1/take", {}, 409)["code"] == "session_closed"


@pytest.mark.parametrize("path", ["", "/messages", "/context", "/take", "/reply", "/give-back"])
@pytest.mark.parametrize("name", ["nobody", "%00", "a" * 3000, "%ff", "ñ"])
def test_an_id_that_names_nothing_is_not_found(desk, path, name):
    url = f"/api/sessions/{name}{path}"
    if path in ("/take", "/reply"):
        desk.post(url, {} if path == "/take" else {"text": "x"}, 404)
    elif path == "/give-back":
        desk.post(url, status=404)
    else:
        desk.get(url, status=404)
