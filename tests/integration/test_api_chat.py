"""Chat over the real engine: one message, one task, one reply, in both dialects."""

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from pydantic import BaseModel, SecretStr
from structlog.testing import capture_logs

from api.app import create_app
from deploy.servers import free_port
from orchestrator.declarations import Agent
from orchestrator.engine import Engine
from orchestrator.errors import TaskError
from orchestrator.settings import Settings
from orchestrator.worker import AttemptFailed, Runtime, StopRequest, TaskContext

TOKEN = "operator-token-0123456789"
KEYS = {"web": "key-of-the-web-0123456789", "n8n": "key-of-n8n-0123456789"}
PHONE, OTHER_PHONE = "+59899123456", "+59899765432"

talker = Agent(role="talker", name="Talker", capabilities=["nlp"], slots=4)


class Message(BaseModel):
    session_id: str
    message: str
    phone: str | None
    channel: str
    language: str | None = None


@talker.handles("process_message", needs=["nlp"], public=False)
def answer(context: TaskContext, payload: Message) -> dict[str, object]:
    """Says back what it was told; priced things have a price."""
    if payload.message == "fail":
        raise TaskError("cannot_answer")
    priced = payload.message == "price"
    quote = {
        "id": "q1",
        "codigo": "C-1",
        "producto": "Isodec",
        "descripcion": "Isodec 100 mm",
        "total": 1234.5,
        "precio_m2": 24.69,
    }
    return {
        "text": f"You said: {payload.message}",
        "intent": "quote_request" if priced else "greeting",
        "tipo": "cotizacion" if priced else "general",
        "confidence": 0.9,
        "needs": [] if priced else ["product"],
        "actions": ["Accept"] if priced else [],
        "quote": quote if priced else None,
        "language": "en",
    }


class Desk:
    """A front door, and a worker that can be told to work."""

    def __init__(self, engine: Engine, runtime: Runtime) -> None:
        self.engine = engine
        self.runtime = runtime
        self.app = create_app(engine)
        self._working = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def work(self) -> None:
        """Run what is queued, from now on."""
        self._working.set()

    def rest(self) -> None:
        """Run nothing more."""
        self._working.clear()

    def post(self, body: dict[str, object], path: str = "/chat/process", **headers: str):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.app.test_client().post(path, json=body, headers=named)

    def get(self, path: str, **headers: str):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.app.test_client().get(path, headers=named)

    def stored(self, collection: str = "tasks") -> list[dict]:
        return list(self.engine.database[collection].find())

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        tasks = self.runtime.engine.database["tasks"]
        task_type = talker.task_types["process_message"]
        while not self._stopped.wait(0.01):
            if not self._working.is_set():
                continue
            for task in tasks.find({"state": "queued"}):
                with contextlib.suppress(AttemptFailed):
                    self.runtime.execute(talker, task_type, task["_id"], task["fence"], alone=False)


@pytest.fixture
def open_desk(settings: Settings) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def opened(agents: tuple[Agent, ...] = (talker,), **changes: object) -> Desk:
        changed = settings.model_copy(update=changes)
        engine = Engine(changed)
        slots = {talker.id: talker.slots}
        runtime = Runtime(
            settings, agents, "talker@test", slots, StopRequest(), watches_consumer=False
        )
        runtime.engine.init(agents)
        desks.append(Desk(engine, runtime))
        return desks[-1]

    yield opened
    for desk in desks:
        desk.stop()
        desk.runtime.engine.close()
        desk.engine.close()


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


@pytest.fixture
def open_door(settings: Settings) -> Iterator[Callable[..., Flask]]:
    """A front door alone, with settings changed: to servers that are away."""
    engines: list[Engine] = []

    def opened(**changes: object) -> Flask:
        engines.append(Engine(settings.model_copy(update=changes)))
        return create_app(engines[-1])

    yield opened
    for engine in engines:
        engine.close()


# -- the reply ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/chat/process", "/api/chat"])
@pytest.mark.parametrize(
    "body", [{"message": "price", "phone": PHONE}, {"mensaje": "price", "telefono": "099123456"}]
)
def test_a_message_is_answered_in_both_dialects(desk, path, body):
    desk.work()
    response = desk.post(body, path)
    assert response.status_code == 200
    told = response.json
    assert told["response"] == told["mensaje"] == "You said: price"
    assert told["session_id"] == told["sesion_id"] != ""
    assert (told["intent"], told["tipo"]) == ("quote_request", "cotizacion")
    assert told["confidence"] == told["confianza"] == 0.9
    assert told["needs"] == told["necesita_datos"] == []
    assert told["actions"] == told["acciones"] == ["Accept"]
    assert told["quote"] == told["cotizacion"]
    assert told["quote"]["total"] == 1234.5
    assert told["quote"]["id"] == "q1"
    assert told["timestamp"].endswith("Z")
    [task] = desk.stored()
    assert told["task_id"] == task["_id"]
    assert task["payload"]["phone"] == PHONE


def test_a_reply_that_is_not_there_in_time_is_a_202_that_can_be_followed(desk):
    response = desk.post({"mensaje": "hola"}, "/chat/process?wait=0")
    assert response.status_code == 202
    told = response.json
    assert "Recibí" in response.text
    assert told["mensaje"] == told["response"]
    assert "Recibí tu mensaje" in told["mensaje"]
    assert told["sesion_id"] == told["session_id"]
    assert (told["quote"], told["needs"], told["tipo"]) == (None, [], None)
    assert response.headers["Location"] == f"/api/tasks/{told['task_id']}"
    assert desk.get(response.headers["Location"]).json["state"] == "queued"
    desk.work()
    done = desk.get(response.headers["Location"] + "?wait=10").json
    assert done["state"] == "completed"
    assert done["reply"]["mensaje"] == "You said: hola"
    assert done["reply"]["sesion_id"] == told["sesion_id"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"message": "hi"}, "I have your message"),
        ({"mensaje": "hola"}, "Recibí tu mensaje"),
        ({"message": "hola", "language": "es"}, "Recibí tu mensaje"),
        ({"mensaje": "hi", "language": "en"}, "I have your message"),
    ],
)
def test_our_own_sentences_are_in_the_customers_language(desk, body, sentence):
    assert sentence in desk.post(body, "/chat/process?wait=0").json["response"]


def test_a_message_that_cannot_be_answered_is_a_problem_with_an_apology(desk):
    desk.work()
    response = desk.post({"mensaje": "fail"})
    assert response.status_code == 500
    assert response.content_type == "application/problem+json"
    told = response.get_json(force=True)
    assert (told["code"], told["task_error"]) == ("task_failed", "cannot_answer")
    assert told["mensaje"] == told["response"]
    assert "Disculpá" in told["mensaje"]
    assert told["sesion_id"] == told["session_id"]
    assert desk.get(f"/api/tasks/{told['task_id']}").json["state"] == "failed"


def test_a_cancelled_message_is_a_problem(desk, eventually):
    body = {"message": "hi", "session_id": "s"}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(desk.post, body)
        [accepted] = eventually(desk.stored, what="the message")
        desk.engine.coordinator.cancel(accepted["_id"])
        response = waiting.result()
    assert response.status_code == 500
    assert response.get_json(force=True)["code"] == "task_cancelled"


# -- one message, one task ---------------------------------------------------------------


def test_the_same_text_in_a_session_is_the_same_message_while_unanswered(desk):
    body = {"message": "hi", "session_id": "s1"}
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: desk.post(body, "/chat/process?wait=0").json, range(8)))
    assert len({reply["task_id"] for reply in told}) == len(desk.stored()) == 1
    assert desk.post(body | {"message": "hi!"}, "/api/chat?wait=0").json["task_id"] not in str(told)
    assert desk.post(body | {"session_id": "s2"}, "/api/chat?wait=0").json["task_id"] not in str(
        told
    )


def test_the_same_text_after_the_answer_is_a_new_message(desk):
    desk.work()
    body = {"message": "hi", "session_id": "s1"}
    assert desk.post(body).json["task_id"] != desk.post(body).json["task_id"]


def test_a_key_makes_a_repetition_safe_without_session_or_phone(desk):
    body = {"message": "hi"}
    desk.work()
    first = desk.post(body, Idempotency_Key='"k-1"')
    assert first.status_code == 200
    for path, key in (("/chat/process", '"k-1"'), ("/api/chat", "k-1")):
        again = desk.post(body, path, Idempotency_Key=key)
        assert (again.status_code, again.json) == (200, first.json)
    assert len(desk.stored()) == 1


def test_a_key_whose_request_is_under_way_is_a_conflict_that_can_be_followed(desk):
    body = {"message": "hi"}
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(desk.post, body, Idempotency_Key='"k"') for _ in range(4)]
        while sum(post.done() for post in waiting) < 3:
            time.sleep(0.01)
        desk.work()
        posts = [post.result() for post in waiting]
    assert sorted(post.status_code for post in posts) == [200, 409, 409, 409]
    [answered] = [post for post in posts if post.status_code == 200]
    refused = next(post for post in posts if post.status_code == 409)
    assert refused.get_json(force=True)["code"] == "request_in_flight"
    assert refused.headers["Location"] == f"/api/tasks/{answered.json['task_id']}"
    assert int(refused.headers["Retry-After"]) > 0
    assert len(desk.stored()) == 1


def test_the_first_answer_comes_again_though_there_is_more_to_tell_by_now(desk):
    body = {"message": "hi"}
    first = desk.post(body, "/chat/process?wait=0", Idempotency_Key='"k"')
    desk.work()
    assert desk.get(first.headers["Location"] + "?wait=10").json["state"] == "completed"
    again = desk.post(body, Idempotency_Key='"k"')
    assert (again.status_code, again.json) == (first.status_code, first.json) == (202, first.json)
    assert again.headers["Location"] == first.headers["Location"]


def test_a_key_is_forgotten_after_its_time_and_not_before(desk):
    body = {"message": "hi"}

    def task_id() -> str:
        return desk.post(body, "/api/chat?wait=0", Idempotency_Key='"k"').json["task_id"]

    def age(hours: float) -> None:
        ago = desk.engine.clock.now() - dt.timedelta(hours=hours)
        desk.engine.database["tasks"].update_many({}, {"$set": {"created_at": ago}})

    first = task_id()
    age(23.9)
    assert task_id() == first
    age(24.1)
    second = task_id()
    assert second != first
    assert task_id() == second
    age(24.1)
    assert task_id() not in (first, second)


def test_a_key_that_came_with_another_body_is_refused(desk):
    desk.post({"message": "hi"}, "/chat/process?wait=0", Idempotency_Key='"k"')
    refused = desk.post({"message": "ho"}, Idempotency_Key='"k"')
    assert refused.status_code == 422
    assert refused.get_json(force=True)["code"] == "idempotency_key_reused"


def test_keys_of_one_caller_are_not_those_of_another(open_desk):
    desk = open_desk(client_keys=SecretStr(",".join(f"{n}:{key}" for n, key in KEYS.items())))
    told = {
        desk.post({"message": "hi"}, "/api/chat?wait=0", Idempotency_Key='"k"', X_API_Key=key).json[
            "task_id"
        ]
        for key in KEYS.values()
    }
    assert len(told) == 2


def test_a_session_that_takes_one_message_at_a_time_refuses_a_second_one(desk):
    desk.work()
    # Answered, or the next one would be a second one.
    assert desk.post({"message": "hi", "session_id": "s"}).status_code == 200
    desk.engine.sessions.set_on_busy("s", "reject")
    assert desk.post({"message": "one", "session_id": "s"}).status_code == 200
    desk.rest()
    with ThreadPoolExecutor(6) as pool:
        posts = list(
            pool.map(
                lambda n: desk.post({"message": f"m{n}", "session_id": "s"}, "/api/chat?wait=0"),
                range(6),
            )
        )
    assert sorted(post.status_code for post in posts) == [202] + [409] * 5
    refused = next(post for post in posts if post.status_code == 409)
    assert refused.get_json(force=True)["code"] == "busy"
    assert int(refused.headers["Retry-After"]) > 0
    # The very message that is under way is no second one.
    [waiting] = [task for task in desk.stored() if task["state"] != "completed"]
    body = {"message": waiting["payload"]["message"], "session_id": "s"}
    assert desk.post(body, "/api/chat?wait=0").json["task_id"] == waiting["_id"]


def test_the_messages_of_a_session_are_answered_in_order(desk):
    bodies = [{"message": f"m{n}", "session_id": "s"} for n in range(6)]
    for body in bodies:
        assert desk.post(body, "/chat/process?wait=0").status_code == 202
    tasks = sorted(desk.stored(), key=lambda task: task["seq"])
    assert [task["payload"]["message"] for task in tasks] == [body["message"] for body in bodies]
    assert [task["state"] for task in tasks] == ["queued"] + ["blocked"] * 5
    desk.work()
    for task in tasks:
        assert desk.get(f"/api/tasks/{task['_id']}?wait=10").json["state"] == "completed"
    ended = sorted(desk.stored(), key=lambda task: task["started_at"])
    assert [task["seq"] for task in ended] == [1, 2, 3, 4, 5, 6]


def test_many_customers_at_once_get_their_own_replies(desk):
    desk.work()
    texts = [f"customer {n}" for n in range(24)]
    with ThreadPoolExecutor(24) as pool:
        told = list(pool.map(lambda t: desk.post({"message": t, "session_id": t}).json, texts))
    assert [reply["response"] for reply in told] == [f"You said: {text}" for text in texts]
    assert [reply["session_id"] for reply in told] == texts


# -- whose session -----------------------------------------------------------------------


def session_of(desk: Desk, **body: object) -> str:
    return desk.post({"message": f"{body}"} | body, "/api/chat?wait=0").json["session_id"]


def test_a_phone_goes_on_in_its_session_whatever_session_id_comes(desk):
    first = session_of(desk, phone=PHONE, session_id="a")
    assert session_of(desk, phone="099 123 456", session_id="b") == first
    assert session_of(desk, telefono=PHONE) == first


def test_a_known_session_with_another_phone_is_a_new_session(desk):
    first = session_of(desk, phone=PHONE, session_id="a")
    assert session_of(desk, phone=OTHER_PHONE, session_id=first) != first


def test_sessions_and_tasks_of_one_client_are_not_reached_by_another(open_desk):
    desk = open_desk(
        client_keys=SecretStr(",".join(f"{n}:{key}" for n, key in KEYS.items())),
        operator_token=SecretStr(TOKEN),
    )
    body = {"message": "hi", "session_id": "mine", "phone": PHONE}
    mine = desk.post(body, "/api/chat?wait=0", X_API_Key=KEYS["web"]).json
    theirs = desk.post(body, "/api/chat?wait=0", X_API_Key=KEYS["n8n"]).json
    assert mine["session_id"] == "mine"
    assert theirs["session_id"] != "mine"
    for view in ("", "/decision", "/timeline"):
        path = f"/api/tasks/{mine['task_id']}{view}"
        assert desk.get(path, X_API_Key=KEYS["web"]).status_code == 200
        assert desk.get(path, Authorization=f"Bearer {TOKEN}").status_code == 200
        assert desk.get(path, X_API_Key=KEYS["n8n"]).status_code == 404
        assert desk.get(path).status_code == 401


# -- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "headers", "status"),
    [
        (b'{"message": "a\nb"}', {}, 400),
        (b'{"message": "hi"', {}, 400),
        (b'{"message": "hi", "message": "ho"}', {}, 400),
        (rb'{"message": "\ud83d"}', {}, 400),
        (b'{"message": "hi"}', {"Idempotency-Key": '"'}, 400),
        (b'{"message": "hi"}', {"Content-Type": "text/plain"}, 415),
        (b'{"message": ""}', {}, 422),
        (rb'{"message": "\u0000"}', {}, 422),
        (b"{}", {}, 422),
        (b"[]", {}, 422),
        (b'"hi"', {}, 422),
        (b"null", {}, 422),
        (b'{"message": "hi", "phone": "none of yours"}', {}, 422),
        (b'{"message": "%s"}' % (b"a" * 10_001), {}, 422),
        (b'{"message": "%s"}' % (b"a" * 65_536), {}, 413),
    ],
)
def test_what_is_refused_is_not_stored_and_not_quoted(desk, raw, headers, status):
    response = desk.app.test_client().post(
        "/chat/process?wait=0", data=raw, headers={"Content-Type": "application/json"} | headers
    )
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    assert "none of yours" not in response.text
    assert desk.stored() == desk.stored("sessions") == []


def test_a_wait_out_of_range_is_refused_by_its_name(desk):
    response = desk.post({"message": "hi"}, "/chat/process?wait=31")
    assert response.status_code == 422
    assert response.get_json(force=True)["errors"][0]["parameter"] == "wait"
    assert desk.stored() == []


def test_ten_thousand_letters_and_markup_are_answered(desk):
    desk.work()
    for text in ("ñ" * 10_000, "<script>alert(1)</script>", "👷🏽‍♂️" * 100, '{"$where": "1"}'):
        response = desk.post({"message": text})
        assert response.status_code == 200
        assert response.content_type == "application/json"
        assert response.json["response"] == f"You said: {text}"


def test_a_session_has_a_limit_of_waiting_messages(open_desk):
    desk = open_desk(max_waiting_per_key=2)
    statuses = [
        desk.post({"message": f"m{n}", "session_id": "s"}, "/api/chat?wait=0").status_code
        for n in range(5)
    ]
    assert statuses == [202, 202, 202, 429, 429]
    refused = desk.post({"message": "m9", "session_id": "s"}, "/api/chat?wait=0")
    assert int(refused.headers["Retry-After"]) > 0


def test_a_desk_that_nobody_staffs_asks_to_come_back(open_desk):
    desk = open_desk(agents=())
    response = desk.post({"message": "hi"})
    assert response.status_code == 503
    assert response.get_json(force=True)["code"] == "chat_unstaffed"
    assert desk.stored("sessions") == []


# -- outages -----------------------------------------------------------------------------


def test_without_mongodb_chat_is_a_503_in_time_for_everybody(open_door):
    app = open_door(mongodb_uri=f"mongodb://127.0.0.1:{free_port()}", store_timeout_s=0.5)

    def post(n: int) -> tuple[int, str, float]:
        began = time.monotonic()
        body = {"message": f"m{n}", "phone": PHONE}
        response = app.test_client().post("/chat/process", json=body)
        return response.status_code, response.headers["Retry-After"], time.monotonic() - began

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert {(status, after) for status, after, _ in answers} == {(503, "2")}
    assert max(took_s for *_, took_s in answers) < 1.5


def test_a_mongodb_that_hangs_is_a_503_in_time(desk, mongo_server):
    desk.post({"message": "hi"}, "/chat/process?wait=0")
    mongo_server.pause()
    try:
        began = time.monotonic()
        responses = [desk.post({"message": "ho"}), desk.get("/api/tasks/x")]
        took_s = time.monotonic() - began
    finally:
        mongo_server.resume()
    assert [response.status_code for response in responses] == [503, 503]
    assert took_s < 2 * desk.engine.settings.store_timeout_s + 1
    desk.work()
    assert desk.post({"message": "ho"}).status_code == 200


def test_without_redis_a_message_is_accepted_all_the_same(desk, open_door):
    app = open_door(redis_url=f"redis://127.0.0.1:{free_port()}", broker_timeout_s=0.2)
    response = app.test_client().post("/api/chat?wait=0", json={"message": "hi"})
    assert response.status_code == 202
    desk.work()
    assert desk.get(response.headers["Location"] + "?wait=10").json["state"] == "completed"


def test_an_accepted_message_whose_reply_cannot_be_read_is_a_202(desk, mongo_server, eventually):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(desk.post, {"message": "hi"}, "/chat/process?wait=2")
        # Whoever listens has its message accepted, and waits.
        channel = f"{desk.engine.settings.key_prefix}:finished"
        eventually(lambda: desk.engine.redis.pubsub_numsub(channel)[0][1])
        mongo_server.pause()
        try:
            response = waiting.result()
        finally:
            mongo_server.resume()
    assert response.status_code == 202


# -- the log -----------------------------------------------------------------------------


def test_no_text_phone_or_credential_is_logged(open_desk):
    desk = open_desk(client_keys=SecretStr(f"web:{KEYS['web']}"))
    desk.work()
    with capture_logs() as logged:
        for text in ("my secret address", "fail"):
            body = {"message": text, "phone": PHONE, "session_id": "secret-session"}
            desk.post(body, X_API_Key=KEYS["web"])
        desk.post({"message": "my secret address", "unknown": 1}, X_API_Key="secret-wrong-key-0123")
        desk.get("/api/tasks/my-secret-path?secret=1", X_API_Key=KEYS["web"])
    requests = [event for event in logged if event["event"] == "http.request"]
    assert [event["status"] for event in requests] == [200, 500, 401, 422]
    assert {event["caller"] for event in requests[:2]} == {"client:web"}
    assert requests[3]["route"] == "/api/tasks/<task_id>"
    for secret in ("secret", "99123456", KEYS["web"]):
        assert secret not in str(logged)
