"""A customer's message goes in at the front door, a quote comes out: the real processes."""

import os
import re
import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from doors import FrontDoor

from orchestrator.tasks import State, Task

OPERATOR = "the operator of these tests"
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]


@pytest.fixture
def desk(desk):
    """A desk with the shipped agents, whose front door can be opened."""
    desk.environment["AGENTS_PACKAGE"] = "agents"
    # As it runs for real: fifty customers at once read them once, not each for himself.
    del desk.environment["DECLARATIONS_REFRESH_S"], desk.environment["LOAD_VIEW_MS"]
    return desk


@pytest.fixture
def front_door(desk) -> str:
    return FrontDoor(desk, OPERATOR_TOKEN=OPERATOR).url


def say(front_door: str, text: str, session: str, **more) -> dict:
    """Say something as a well-behaved client does: after a 503, again with the same key."""
    key = secrets.token_hex(8)
    for _ in range(10):
        answer = requests.post(
            f"{front_door}/chat/process?wait=30",
            json={"mensaje": text, "sesionId": session} | more,
            headers={"Idempotency-Key": f'"{key}"'},
            timeout=60,
        )
        if answer.status_code != 503:
            break
        time.sleep(float(answer.headers["Retry-After"]))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_quote_in_three_turns_in_spanish(desk, front_door):
    desk.worker("conversation", package="agents")
    desk.worker("quote", package="agents")
    first = say(front_door, "Hola, quiero cotizar isodec", "es-1")
    assert first["tipo"] == "cotizacion"
    assert {"espesor", "dimensiones"} <= set(first["necesita_datos"])
    second = say(front_door, "de 100 mm, blanco", "es-1")
    assert second["necesita_datos"] == ["dimensiones"]
    third = say(front_door, "10 x 5 metros", "es-1")
    assert third["cotizacion"]["total"] == 7500.00
    assert third["cotizacion"]["precio_m2"] == 150
    assert "7.500" in third["mensaje"]
    assert third["sesion_id"] == third["session_id"] == "es-1"
    task = desk.engine.store.get(third["task_id"])
    assert [e["event"] for e in task.timeline] == [
        "accepted", "promoted", "claimed", "waiting", "resumed", "claimed", "completed",
    ]  # fmt: skip
    assert desk.engine.store.get(task.child_ids()[0]).agent == "quote_agent"
    # The customer has it, and says whose it is afterwards.
    quotes = desk.engine.database["quotes"]
    assert quotes.find_one({"_id": third["quote"]["id"]})["state"] == "sent"
    say(front_door, "soy Juan Pérez", "es-1")
    assert quotes.find_one({"_id": third["quote"]["id"]})["customer"]["name"] == "Juan Pérez"


def test_a_quote_in_english_and_a_correction_after_it(desk, front_door):
    desk.worker("conversation", package="agents")
    desk.worker("quote", package="agents")
    say(front_door, "Hi! I need a price for rock wool, 50 mm", "en-1")
    quoted = say(front_door, "9 x 7 m please", "en-1")
    assert quoted["quote"]["total"] == 7056.00
    assert quoted["intent"] == "quote"
    assert re.search(r"7,056", quoted["response"])
    corrected = say(front_door, "no, make it isodec 150 mm, 10 x 5", "en-1")
    assert corrected["quote"]["total"] == 9000.00
    assert corrected["quote"]["codigo"] != quoted["quote"]["codigo"]


def test_a_correction_supersedes_the_quote_and_the_new_one_is_accepted(desk, front_door):
    desk.worker("conversation", package="agents")
    desk.worker("quote", package="agents")
    quotes = desk.engine.database["quotes"]
    first = say(front_door, "isodec 100 de 10x5", "v-1")["cotizacion"]
    second = say(front_door, "no, mejor de 150", "v-1")["cotizacion"]
    assert second["total"] == 9000.00
    assert quotes.find_one({"_id": first["id"]})["superseded_by"] == second["id"]
    assert "aceptada" in say(front_door, "acepto", "v-1")["mensaje"]
    assert quotes.find_one({"_id": second["id"]})["state"] == "accepted"
    assert "Está aceptada" in say(front_door, "cuánto era?", "v-1")["mensaje"]
    # The business has turned it down meanwhile: what the customer is told is how it stands now.
    third = say(front_door, "quiero otra cotización: telgopor 75 de 8x4", "v-1")["cotizacion"]
    quotes.update_one({"_id": third["id"]}, {"$set": {"superseded_by": "another"}})
    assert "no pude registrarlo" in say(front_door, "acepto", "v-1")["mensaje"].lower()


def test_who_does_not_want_to_be_written_to_is_remembered(desk, front_door):
    desk.worker("conversation", package="agents")
    answer = say(front_door, "no me escriban más", "stop-1", telefono="+59899123456")
    assert "no te escribimos más" in answer["mensaje"]
    assert desk.engine.contacts.opted_out("+59899123456")


def test_a_customer_who_comes_back_is_known_and_may_ask_for_a_person(desk, front_door):
    desk.worker("conversation", package="agents")
    desk.worker("quote", package="agents")
    phone = "+59899765432"
    quoted = say(front_door, "soy Ana, isodec 100 de 10x5", "back-1", telefono=phone)
    desk.engine.sessions.close(quoted["session_id"])
    greeted = say(front_door, "hola", "back-2", telefono=phone)
    assert greeted["session_id"] != quoted["session_id"]
    assert "Ana" in greeted["mensaje"]
    asked = say(front_door, "cuánto era?", greeted["session_id"], telefono=phone)
    assert quoted["cotizacion"]["codigo"] in asked["mensaje"]
    handed = say(front_door, "quiero hablar con una persona", greeted["session_id"], telefono=phone)
    assert desk.engine.sessions.get(handed["session_id"]).owner == "human"


def test_the_reply_comes_though_the_quote_worker_is_killed_in_its_handler(
    desk, front_door, eventually
):
    gate = desk.directory / "gate"
    desk.environment["GATE"] = str(gate)
    desk.worker("conversation", package="agents")
    victim = desk.worker("quote", app="gated_quote")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(say, front_door, "cotizame isodec 100 mm blanco 10x5", "k")
        began = gate.with_name("gate.journal")
        eventually(began.exists, 20, "the quote's handler has begun")
        os.kill(victim.pid, signal.SIGKILL)
        gate.touch()
        desk.worker("quote", package="agents")
        quoted = answer.result(60)
    assert quoted["cotizacion"]["total"] == 7500.00
    assert desk.engine.database["quotes"].count_documents({}) == 1
    child = desk.engine.store.get(desk.engine.store.get(quoted["task_id"]).child_ids()[0])
    assert (child.crashes, child.attempts) == (1, 2)


def test_what_comes_while_a_turn_runs_and_who_takes_it_over(desk, front_door, eventually):
    """The quote is held at a gate, so that the turn is surely under way."""
    gate = desk.directory / "gate"
    began = gate.with_name("gate.journal")
    desk.environment["GATE"] = str(gate)
    desk.worker("conversation", package="agents")
    desk.worker("quote", app="gated_quote")
    tasks = desk.engine.database["tasks"]
    desk_of_persons = requests.Session()
    desk_of_persons.headers["Authorization"] = f"Bearer {OPERATOR}"

    def person(method: str, what: str = "", **body: str) -> requests.Response:
        url = f"{front_door}/api/sessions/busy{what}"
        answer = desk_of_persons.request(method, url, json=body or None, timeout=10)
        assert answer.ok, answer.text
        return answer

    def accepted(count: int) -> bool:
        return tasks.count_documents({"key": "session:busy"}) == count

    def shut() -> None:
        gate.unlink()
        began.unlink()

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(say, front_door, "isodec 100\n10x5\nsin flete", "busy")
        eventually(began.exists, 20, "the first quote is being made")
        later = []
        for number, text in enumerate(("perdón", "mejor de 150", "y gris"), 2):
            later.append(pool.submit(say, front_door, text, "busy"))
            eventually(lambda count=number: accepted(count), 10, "each is stored before the next")
        gate.touch()
        assert first.result(60)["cotizacion"]["total"] == 6750.00
        answers = [each.result(60) for each in later]
    # Three thoughts, one answer: 180 x 1.05 x 0.90 x 50.
    assert {answer["cotizacion"]["total"] for answer in answers} == {8505.00}
    assert len({answer["mensaje"] for answer in answers}) == 1
    assert len({answer["task_id"] for answer in answers}) == 3
    assert desk.engine.database["quotes"].count_documents({}) == 2

    person("PATCH", on_busy="reject")
    shut()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(say, front_door, "y de 75?", "busy")
        eventually(began.exists, 20, "another quote is being made")
        refused = requests.post(
            f"{front_door}/chat/process",
            json={"mensaje": "hola?", "sesionId": "busy"},
            timeout=10,
        )
        assert (refused.status_code, refused.json()["code"]) == (409, "busy")
        person("POST", "/take", by="Ana")
        gate.touch()
        answer = held.result(60)
    assert (answer["mensaje"], answer["owner"]) == ("", "human")
    person("POST", "/reply", text="Soy Ana.", by="Ana")
    person("POST", "/give-back")
    assert say(front_door, "gracias!", "busy")["mensaje"]
    told = person("GET", "/messages?page_size=50").json()["messages"]
    assert [message["role"] for message in told] == [
        *["customer"] * 4, "assistant", "assistant", "customer", "person", "customer", "assistant",
    ]  # fmt: skip


def test_of_two_agents_that_know_the_products_the_one_with_room_answers(desk, eventually):
    """The quote agent is the closer fit, until its slots are taken."""
    gate = desk.directory / "gate"
    desk.environment["GATE"] = str(gate)
    desk.worker("conversation", package="agents")
    desk.worker("quote", "-c", "2", app="gated_quote")

    def answered() -> Task:
        question = {"question": "el isodec es bueno para el fuego?", "language": "es"}
        return desk.finished(desk.submit("answer_product_question", question))

    assert answered().decision["agent"] == "quote_agent"
    wanted = {"items": [{"product": "isodec", "thickness_mm": 100, "area_m2": 50}]}
    held = [desk.submit("create_quote", wanted) for _ in range(2)]
    eventually(
        lambda: desk.engine.service.agent("quote_agent")["current_tasks"] == 2,
        20,
        "both slots of the quote agent are taken",
    )
    passed_on = answered()
    assert "fuego" in passed_on.result["text"].lower()
    assert passed_on.decision["agent"] == "conversation_agent"
    assert "the shortest expected wait" in passed_on.decision["reason"]
    scores = {c["agent"]: c["score"] for c in passed_on.decision["candidates"]}
    assert scores["conversation_agent"] < scores["quote_agent"]
    gate.touch()
    assert all(desk.finished(task).state is State.COMPLETED for task in held)


def test_fifty_customers_at_once_are_each_answered_in_order(desk, front_door):
    """Each says five things; no reply is mixed up, and each session keeps its order."""
    desk.worker("conversation", package="agents")
    desk.worker("quote", package="agents")
    totals = {100: 150, 50: 120, 75: 135, 125: 165, 150: 180}

    def customer(n: int) -> None:
        session, thickness = f"customer-{n}", [50, 75, 100, 125, 150][n % 5]
        length, width = n % 9 + 2, n % 4 + 2
        say(front_door, "hola", session)
        say(front_door, "quiero cotizar isodec", session)
        say(front_door, f"de {thickness} mm", session)
        quoted = say(front_door, f"{length} x {width} metros", session)
        assert quoted["session_id"] == session
        assert quoted["quote"]["total"] == totals[thickness] * length * width
        assert f"{thickness} mm" in quoted["quote"]["descripcion"]
        assert say(front_door, "gracias!", session)["session_id"] == session

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(customer, range(50)))
    for n in range(50):
        found = desk.engine.database["tasks"].find({"key": f"session:customer-{n}"}).sort("seq", 1)
        turns = list(found)
        assert [turn["seq"] for turn in turns] == [1, 2, 3, 4, 5]
        ends = [turn["finished_at"] for turn in turns]
        assert ends == sorted(ends)
