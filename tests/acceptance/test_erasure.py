"""A customer's data, given out and erased while one of its tasks is killed in the middle."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import privacy
import pytest
import requests
from doors import FrontDoor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

TOKEN = "operator-token-0123456789"
PHONE, WRITTEN = "+59899345678", "099 345 678"
NAME = "Xilofonazo"
SAID = f"hola, soy {NAME}, cotizame isodec 100 mm blanco de 10x5 para el galpón del fondo"


class Door(FrontDoor):
    """A front door, as the operator and a customer use it."""

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return requests.request(method, self.url + path, json=body, headers=headers, timeout=60)


def everything(desk: Any) -> dict[str, str]:
    """All that is anywhere."""
    database = desk.engine.database
    kept = {name: repr(list(database[name].find())) for name in database.list_collection_names()}
    return kept | {
        "Redis": privacy.everything_in(desk.engine.redis),
        "a command to Redis": desk.ear.heard(),
        "a log": privacy.logs_in(desk.directory),
    }


def test_nothing_is_left_of_a_customer_whose_task_was_killed_in_the_middle(
    desk: Any, project: Any, eventually: Any
) -> None:
    gate = desk.directory / "gate"
    desk.environment |= {"AGENTS_PACKAGE": "agents", "GATE": str(gate), "OPERATOR_TOKEN": TOKEN}
    door = Door(desk)
    desk.worker("conversation", package="agents")
    desk.worker("orchestrator", package="agents")
    victim = desk.worker("quote", app="gated_quote")
    with ThreadPoolExecutor(1) as pool:
        body = {"mensaje": SAID, "telefono": WRITTEN, "sesionId": "mine"}
        answer = pool.submit(door.ask, "POST", "/chat/process?wait=30", body)
        eventually(gate.with_name("gate.journal").exists, 20, "the quote's handler has begun")
        secrets = privacy.secrets_of(desk.engine.database, {}) | {NAME: "the name"}
        assert {SAID, PHONE, "99345678"} <= secrets.keys()
        os.kill(victim.pid, signal.SIGKILL)
        exported = door.ask("POST", "/api/customers/export", {"phone": WRITTEN})
        assert exported.status_code == 200
        assert SAID in exported.text
        assert any(task["type"] == "create_quote" for task in exported.json()["tasks"])
        erasing = door.ask("POST", "/api/customers/erase", {"phone": PHONE})
        assert erasing.status_code == 202
        gate.touch()
        # Another worker comes, and finds what the killed one held.
        desk.worker("quote", package="agents")

        def done() -> bool:
            told = door.ask("GET", erasing.headers["Location"])
            return bool(told.json()["state"] == "done")

        eventually(done, 60, "the erasure is done")
        assert answer.result(60).status_code in (202, 410, 500), answer.result().text
    # The gate's journal is the test's own, and says nothing of the customer.
    assert privacy.leaks(everything(desk), secrets) == []
    again = door.ask("POST", "/api/customers/export", {"phone": PHONE}).json()
    assert {name: kept for name, kept in again.items() if isinstance(kept, list) and kept} == {}
