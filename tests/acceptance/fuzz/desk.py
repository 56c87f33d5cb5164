"""A desk to be fuzzed: the front door, one worker of all agents, and something of each kind."""

from typing import Any

import requests
from conftest import Desk
from doors import FrontDoor

TOKEN = "operator-token-0123456789"
APP_SECRET = "app-secret-0123456789"


class Door(FrontDoor):
    """A front door with all that a request can meet behind it."""

    def __init__(self, desk: Desk) -> None:
        environment = {
            "AGENTS_PACKAGE": "agents",
            "OPERATOR_TOKEN": TOKEN,
            "CLIENT_KEYS": "web:key-of-the-web-0123456789",
            "WHATSAPP_APP_SECRET": APP_SECRET,
            "WHATSAPP_VERIFY_TOKEN": "verify-token-0123456789",
            # Fuzzed for what it answers, not for how long it makes wait, or refuses much.
            "CHAT_WAIT_S": "1",
            "STORE_TIMEOUT_S": "20",
            "MAX_EXPECTED_WAIT_S": "86400",
            "MAX_UNFINISHED": "100000",
        }
        desk.environment |= environment
        super().__init__(desk)
        desk.worker("conversation", app="agents.all", package="agents")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the front door answers the operator.

        Raises:
            AssertionError: a refusal.
        """
        answer = requests.request(
            method,
            self.url + path,
            json=body,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=40,
        )
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def furnish(self, eventually: Any) -> dict[str, list[str]]:
        """Put something of each kind on the desk.

        Returns: ids by the names of the parameters that take them; under "ended:<name>" those
        whose event streams are over.
        """
        said = [self._say("fuzz-open"), self._say("fuzz-closed"), self._say("fuzz-taken")]
        self.ask("POST", "/api/sessions/fuzz-taken/take", {"by": "Ana"})
        self.ask("PATCH", "/api/sessions/fuzz-closed", {"status": "closed"})
        quote = self.ask(
            "POST",
            "/api/quotes?wait=30",
            {"items": [{"product": "isodec", "thickness_mm": 100, "area_m2": 20}]},
        )
        failed = self.ask(
            "POST", "/api/tasks?wait=30", {"type": "render_quote", "payload": {"quote_id": "none"}}
        )
        assert failed["state"] == "failed", failed
        erasure = self.ask("POST", "/api/customers/erase", {"phone": "+59899000099"})
        runs = [
            self._run("fuzzed", {"id": "asked", "callback": "asked", "timeout": "1h"}),
            # One that has completed cannot be made to go on: its stream ends.
            self._run("fuzzed_over", {"id": "report", "task": "housekeeping_report"}),
        ]

        def over() -> bool:
            return bool(self.ask("GET", f"/api/workflows/runs/{runs[1]}")["state"] == "completed")

        eventually(over, 30, "the second run is over")
        tasks = [reply["task_id"] for reply in said]
        return {
            "task_id": [*tasks, failed["id"], failed["id"]],
            "ended:task_id": [*tasks, failed["id"], "nobodys"],
            "session_id": ["fuzz-open", "fuzz-closed", "fuzz-taken"],
            "ended:session_id": ["fuzz-closed", "nobodys"],
            "quote_id": [quote["id"], said[0]["quote"]["id"]],
            "erasure_id": [erasure["id"]],
            "workflow_id": ["fuzzed"],
            "run_id": runs,
            "ended:run_id": [runs[1], "nobodys"],
            "name": ["asked"],
            "agent_id": ["quote_agent"],
        }

    def _run(self, workflow_id: str, step: dict[str, Any]) -> Any:
        definition = {"id": workflow_id, "steps": [step]}
        self.ask("PUT", f"/api/workflows/{workflow_id}", definition)
        return self.ask("POST", f"/api/workflows/{workflow_id}/runs", {})["id"]

    def _say(self, session_id: str) -> Any:
        body = {
            "message": "isodec de 100 mm para un techo de 10 x 5",
            "session_id": session_id,
            "channel": "whatsapp",
        }
        reply = self.ask("POST", "/api/chat?wait=30", body)
        assert reply["quote"], reply
        return reply
