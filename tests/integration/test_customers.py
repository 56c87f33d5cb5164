"""A customer's data: all of it is given out, and nothing of it is left after an erasure."""

import base64
import contextlib
import datetime as dt
import json
import re
import threading

import pytest
from pydantic import BaseModel, SecretStr

from agents.conversation.agent import agent as conversation
from agents.quote.agent import agent as quote
from api.app import create_app
from orchestrator import phones
from orchestrator.declarations import Agent, Holding
from orchestrator.definitions import check
from orchestrator.engine import Engine
from orchestrator.errors import NotFound
from orchestrator.outbox import Outgoing
from orchestrator.tasks import Request, State
from orchestrator.worker import AttemptFailed, Runtime, StopRequest

TOKEN = "operator-token-0123456789"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
PHONE, OTHER = "+59899123456", "+59899765432"
NAME = "Xiomara"
# However somebody wrote it, and what was said.
TRACES = ["99123456", "99 123 456", "99-123-456", NAME, "isodec de 100", "cuidado con el perro"]

held = threading.Event()
go_on = threading.Event()
probe = Agent(
    role="probe",
    name="Probe",
    capabilities=["probing"],
    slots=2,
    holdings=[Holding("notes", session="session", phone="who.phone")],
)


class Note(BaseModel):
    text: str = ""
    phone: str | None = None
    session_id: str | None = None


@probe.handles("note")
def note(context, payload: Note):
    """Keeps a note; one that says "hold" waits first, and never asks whether to stop."""
    if payload.text == "hold":
        held.set()
        assert go_on.wait(20)
    context.engine.database["notes"].insert_one(
        {
            "who": {"phone": payload.phone},
            "session": payload.session_id,
            "_id": context.task.id,
            "text": payload.text,
        }
    )
    return payload.text


AGENTS = (conversation, quote, probe)


class Desk:
    """A front door, and a worker of all agents."""

    def __init__(self, settings) -> None:
        held.clear()
        go_on.clear()
        # A short wait for the store makes what is on its way arrive soon.
        changed = settings.model_copy(
            update={"operator_token": SecretStr(TOKEN), "store_timeout_s": 0.5}
        )
        self.runtime = Runtime(
            changed,
            AGENTS,
            "all@test",
            {agent.id: 4 for agent in AGENTS},
            StopRequest(),
            watches_consumer=False,
        )
        self.runtime.engine.init(AGENTS)
        self.engine = Engine(changed)
        self.door = create_app(self.engine).test_client()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        handlers = {
            name: (agent, task_type)
            for agent in AGENTS
            for name, task_type in agent.task_types.items()
        }
        tasks = self.engine.database["tasks"]
        while not self._stopped.wait(0.01):
            for task in tasks.find({"state": "queued"}):
                agent, task_type = handlers[task["type"]]
                with contextlib.suppress(AttemptFailed):
                    self.runtime.execute(agent, task_type, task["_id"], task["fence"], alone=False)

    def say(self, text: str, phone: str = PHONE, **more) -> dict:
        body = {"mensaje": text, "telefono": phone} | more
        response = self.door.post("/chat/process", json=body, headers=OPERATOR)
        assert response.status_code == 200, response.text
        return response.json

    def erased(self, eventually, phone: str = PHONE) -> dict:
        response = self.door.post("/api/customers/erase", json={"phone": phone}, headers=OPERATOR)
        assert response.status_code == 202
        assert phone not in response.text
        return self.done(eventually, response.headers["Location"])

    def done(self, eventually, location: str) -> dict:
        rescuer = self.engine.customers

        def done():
            rescuer.rescue(5)
            shown = self.door.get(location, headers=OPERATOR).json
            return shown if shown["state"] == "done" else None

        return eventually(done, 30, "the erasure is done")

    def everything(self) -> dict[str, str]:
        """All that MongoDB and Redis hold, as text."""
        database = self.engine.database
        told = {
            name: repr(list(database[name].find())) for name in database.list_collection_names()
        }
        client = self.engine.redis
        for key in client.scan_iter("*"):
            kind = client.type(key)
            read = {
                "string": client.get,
                "hash": client.hgetall,
                "list": lambda key: client.lrange(key, 0, -1),
                "zset": lambda key: client.zrange(key, 0, -1),
                "set": client.smembers,
            }[kind]
            told[f"redis {key}"] = f"{key} {self._opened(repr(read(key)))}"
        return told

    @staticmethod
    def _opened(text: str) -> str:
        bodies = re.findall(r'"body": "([A-Za-z0-9+/=]+)"', text)
        return text + "".join(base64.b64decode(body).decode() for body in bodies)

    def stop(self) -> None:
        go_on.set()
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self.runtime.engine.close()
        self.engine.close()


@pytest.fixture
def desk(settings):
    desk = Desk(settings)
    yield desk
    desk.stop()


def traces(told: dict[str, str]) -> dict[str, list[str]]:
    found = {where: [trace for trace in TRACES if trace in text] for where, text in told.items()}
    return {where: what for where, what in found.items() if what}


def conversation_with_everything(desk: Desk, eventually) -> dict:
    desk.say("Hola, cuidado con el perro. Cuanto sale el isodec de 100 para un techo de 10 x 5?")
    desk.say(f"me llamo {NAME}, gracias!")
    quoted = next(iter(desk.engine.database["quotes"].find()))
    asked = {
        "type": "create_quote",
        "payload": {"customer": {"name": NAME, "phone": "+598 99-123 456"}},
    }
    asked["payload"] |= {"items": [{"product": "isodec", "thickness_mm": 100, "area_m2": 20}]}
    response = desk.door.post("/api/tasks?wait=10", json=asked, headers=OPERATOR)
    assert response.json["state"] == "completed", response.text
    note = {"text": "call (099) 123-456", "phone": PHONE, "session_id": quoted["session"]}
    for type, payload in (("note", note), ("render_quote", {"quote_id": quoted["_id"]})):
        if type not in {name for agent in AGENTS for name in agent.task_types}:
            continue
        task, _ = desk.engine.coordinator.submit(Request(type, payload))
        assert desk.engine.replies.wait(task.id, 10).state is State.COMPLETED
    desk.engine.files.keep(
        f"{quoted['_id']}.9", NAME.encode(), content_type="application/pdf", name="q.pdf"
    )
    desk.engine.contacts.heard_from(PHONE, "whatsapp", desk.engine.clock.now())
    desk.engine.contacts.opt_out(PHONE)
    desk.engine.definitions.put(
        check(
            {
                "id": "flow",
                "steps": [
                    {
                        "id": "a",
                        "task": "note",
                        "payload": {"text": "=input.who"},
                    },
                    {"id": "q", "callback": "reply", "session": "input.session_id"},
                ],
            }
        ),
        "test",
    )
    given = {"who": f"{NAME}, 099-123-456", "session_id": quoted["session"]}
    run, _ = desk.engine.workflows.start("flow", given, caller="test")
    eventually(lambda: desk.engine.database["run_waits"].find_one({"run_id": run.id}))
    desk.engine.outbox.put(task, 0, Outgoing("whatsapp", PHONE, {"text": NAME}), quoted["session"])
    return quoted


def test_everything_is_given_out_and_then_nothing_is_left(desk, eventually, capfd):
    quoted = conversation_with_everything(desk, eventually)
    desk.say("hola, soy otra persona", OTHER)
    assert {
        "sessions",
        "tasks",
        "quotes",
        "outbox",
        "files",
        "notes",
        "runs",
        "messages",
    } <= traces(desk.everything()).keys()

    response = desk.door.post(
        "/api/customers/export", json={"phone": "+598 99-123 456"}, headers=OPERATOR
    )
    assert response.status_code == 200
    told = response.json
    assert told["phone"] == PHONE
    assert len(told["quotes"]) == 2
    assert told["contact"].keys() == {"heard", "opted_out_at"}
    for name in ("sessions", "messages", "contexts", "outbox", "notes", "files", "runs"):
        assert told[name], name
    types = [task["type"] for task in told["tasks"]]
    assert types.count("process_message") == 2
    assert {"create_quote", "note"} <= set(types)
    assert "cuidado con el perro" in json.dumps(told, ensure_ascii=False)
    assert OTHER not in response.text
    totals = sorted(quote["total"] for quote in told["quotes"])

    erasure = desk.erased(eventually)
    assert erasure["counts"]["quotes"] == 2
    assert erasure["counts"]["sessions"] == erasure["counts"]["runs"] == 1
    assert desk.engine.database["run_waits"].count_documents({}) == 0
    assert traces(desk.everything()) == {}
    kept = list(desk.engine.database["quotes"].find())
    assert sorted(str(each["total"]) for each in kept) == totals
    assert {each["customer"]["phone"] for each in kept} == {None}
    assert kept[0]["code"]
    # It is still not to be written to, and the other customer is there.
    assert desk.engine.contacts.opted_out(PHONE)
    assert desk.engine.contacts.last_heard(PHONE, "whatsapp") is None
    assert OTHER in repr(list(desk.engine.database["sessions"].find()))
    with pytest.raises(NotFound):
        desk.engine.sessions.get(quoted["session"])
    again = desk.door.post("/api/customers/export", json={"phone": PHONE}, headers=OPERATOR).json
    assert again["tasks"] == again["sessions"] == again["quotes"] == []
    logged = capfd.readouterr()
    assert traces({"log": logged.out + logged.err}) == {}
    acts, _ = desk.engine.audit.page(10)
    assert [act["action"] for act in acts] == [
        "customer.export",
        "customer.erase",
        "customer.export",
    ]
    assert {act["subject"] for act in acts} == {desk.engine.contacts.alias(PHONE)}


def test_a_running_tasks_later_writes_are_erased_and_what_is_behind_it_goes_on(desk, eventually):
    session_id = desk.say("hola, cuidado con el perro")["sesion_id"]
    key = f"session:{session_id}"

    def submit(text: str, **more) -> str:
        payload = {"text": text, "phone": PHONE, "session_id": session_id}
        return desk.engine.coordinator.submit(Request("note", payload, **more))[0].id

    running = submit("hold", ordering_key=key)
    alone = desk.engine.coordinator.submit(Request("note", {"text": "a", "phone": PHONE}))[0].id
    blocked = submit(f"{NAME} is blocked", ordering_key=key)
    assert held.wait(10)
    erasing = desk.engine.customers.erase(PHONE, by="test")
    for _ in range(5):
        erasing = desk.engine.customers.advance(erasing.id)
    assert erasing.state == "erasing"
    assert desk.engine.store.get(blocked).state is State.CANCELLED
    assert desk.engine.store.get(running).cancel
    # Who writes meanwhile has a new life: it stays.
    desk.say("hola de nuevo, soy nueva aqui")
    go_on.set()
    desk.done(eventually, f"/api/customers/erasures/{erasing.id}")
    told = desk.everything()
    assert NAME not in repr(told)
    assert "cuidado con el perro" not in repr(told)
    assert told["notes"] == "[]"
    for task_id in (running, blocked, alone):
        shell = desk.engine.store.get(task_id)
        assert (shell.state, shell.payload, shell.result) == (State.CANCELLED, {}, None)
        assert shell.error["code"] == "erased"
    (session,) = desk.engine.database["sessions"].find({"phone": PHONE})
    assert session["_id"] != session_id
    assert "hola de nuevo" in told["tasks"]
    response = desk.door.get(f"/api/tasks/{running}", headers=OPERATOR)
    assert (response.status_code, response.json["state"]) == (200, "cancelled")


def test_a_message_sent_again_after_the_erasure_does_not_come_back(desk, eventually):
    body = {"mensaje": "cuidado con el perro", "telefono": PHONE}
    headers = OPERATOR | {"Idempotency-Key": "wamid-1"}
    assert desk.door.post("/chat/process", json=body, headers=headers).status_code == 200
    desk.erased(eventually)
    again = desk.door.post("/chat/process", json=body, headers=headers)
    assert again.status_code == 410
    assert again.get_json(force=True)["code"] == "erased"
    assert traces(desk.everything()) == {}


def test_an_erasure_that_is_under_way_is_not_begun_twice(desk, eventually):
    desk.say("hola")
    first = desk.engine.customers.erase(PHONE, by="test")
    assert desk.engine.customers.erase(PHONE, by="test").id == first.id
    desk.done(eventually, f"/api/customers/erasures/{first.id}")
    assert desk.engine.customers.erase(PHONE, by="test").id != first.id


def test_an_erasure_that_cannot_go_on_keeps_no_other_waiting(desk, eventually):
    broken = [desk.engine.customers.erase(f"+5989912340{n}", by="test").id for n in range(5)]
    query = {"_id": {"$in": broken}}
    desk.engine.database["erasures"].update_many(query, {"$set": {"phone": 7}})
    assert desk.erased(eventually)["state"] == "done"
    assert {desk.engine.customers.get(each).state for each in broken} == {"erasing"}


def test_queries_by_phone_and_session_use_an_index(desk):
    for holding in desk.engine.customers._holdings():
        for field in (holding.phone, holding.session):
            if field is not None and holding.collection != "notes":
                found = desk.engine.database[holding.collection].find({field: "x"})
                plan = str(found.explain()["queryPlanner"]["winningPlan"])
                assert "COLLSCAN" not in plan, (holding.collection, field)


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 422), ({"phone": "no"}, 422), ({"phone": ""}, 422), ({"phone": PHONE, "x": 1}, 422)],
)
def test_what_is_no_phone_is_refused(desk, body, status):
    for path in ("export", "erase"):
        response = desk.door.post(f"/api/customers/{path}", json=body, headers=OPERATOR)
        assert response.status_code == status
        assert desk.door.post(f"/api/customers/{path}", json=body).status_code == 401


@pytest.mark.parametrize(
    "text",
    ["+598 99 123 456", "099123456", "099-123-456", "(099) 123.456", "mi cel es 99 123 456, dale"],
)
def test_a_phone_is_recognised_in_all_its_spellings(text):
    assert phones.names({"a": ["b", {"c": text}]}, PHONE)
    assert not phones.names({"a": ["b", {"c": text}]}, OTHER)


def test_the_usual_spellings_are_looked_for():
    assert {PHONE, "099123456", "099 123 456", "59899123456"} <= set(phones.spellings(PHONE))
    assert all(phones.e164(written) == PHONE for written in phones.spellings(PHONE))


def test_tasks_of_no_session_are_found_and_only_those(engine):
    engine.database["tasks"].insert_many(
        [
            {"_id": f"{n:012x}x", "idempotency": f"i{n}"} | ({"session_id": "s"} if n % 2 else {})
            for n in range(9)
        ]
    )
    start = dt.datetime.fromtimestamp(0, dt.UTC)
    found = engine.store.without_session(start, start + dt.timedelta(hours=3))
    assert [document["_id"] for document in found] == [f"{n:012x}x" for n in range(0, 9, 2)]
    query = {"session_id": None, "_id": {"$gte": "0", "$lt": "1"}}
    plan = engine.database["tasks"].find(query).explain()["queryPlanner"]["winningPlan"]
    assert "COLLSCAN" not in str(plan)
