"""`make demo`: a conversation with the system that `make run` started, and how it came about.

Talks to the front door as any client does. FRONT_DOOR names another one than the local stack's,
CLIENT_KEY what it asks for. Ends with one line where nobody answers.
"""

import os
import secrets
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
from rich.align import Align
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.folder import Folder
from deploy.servers import LOOPBACK

SAID = (
    "Hola, cuanto sale el isodec?",
    "de 10 cm, y es para un techo de 10 x 5",
    "y es bueno para el fuego?",
    "dale, pero mejor gris y de 150",
    "soy Juan, gracias!",
)
WAIT_S = 30
# Facts of a timeline's events that say more than they cost to read.
FACTS = ("agent", "worker", "code", "children", "pause_s")
Document = dict[str, Any]


class Unanswered(Exception):
    """The demonstration cannot go on; the message is for the user."""


class Door:
    """The front door, as a client sees it."""

    def __init__(self) -> None:
        folder = Folder(Path(os.environ.get("DATA_DIR") or ".data"))
        url = os.environ.get("FRONT_DOOR")
        if not url:
            if not (folder.stack_env.exists() and folder.is_locked()):
                raise Unanswered(
                    "nothing runs here: start `make run` in another terminal and wait until it is "
                    "ready, or set FRONT_DOOR=http://..."
                )
            url = f"http://{LOOPBACK}:{folder.read_stack_env().get('PORT', '8000')}"
        key = os.environ.get("CLIENT_KEY") or os.environ.get("OPERATOR_TOKEN")
        if not key and (token := folder.path / "operator_token").exists():
            key = token.read_text().strip()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = url
        self._client = httpx2.Client(base_url=url, headers=headers, timeout=WAIT_S + 10)

    def ask(self, method: str, path: str, **more: Any) -> Document:
        """The answer to a request.

        Raises:
            Unanswered: there is none, or a problem.
        """
        try:
            response = self._client.request(method, path, **more)
        except httpx2.HTTPError as error:
            raise Unanswered(f"{self.url} does not answer ({type(error).__name__})") from None
        answer: Document = response.json()
        if response.status_code != 200:
            said = answer.get("detail", answer.get("response", ""))
            raise Unanswered(f"{method} {path}: {response.status_code}, {said}")
        return answer


def talk(console: Console, door: Door) -> list[str]:
    """Say everything, one after the other; returns the tasks that it became."""
    session, tasks = f"demo-{secrets.token_hex(4)}", []
    console.rule("A customer writes")
    for said in SAID:
        show(console, "customer", said, "left", "cyan")
        body = {"mensaje": said, "sesionId": session}
        reply = door.ask("POST", "/chat/process", params={"wait": WAIT_S}, json=body)
        show(console, "assistant", reply["mensaje"], "right", "green")
        tasks.append(reply["task_id"])
    return tasks


def show(console: Console, who: str, said: str, side: Any, colour: str) -> None:
    """One message as a bubble."""
    width = min(64, max(len(said), len(who) + 4) + 4, console.width - 8)
    bubble = Panel(Text(said), title=who, title_align=side, border_style=colour, width=width)
    console.print(Align(bubble, align=side))


def explain(console: Console, door: Door, number: int, task_id: str) -> None:
    """A message's task and those it handed over: who was chosen, and what happened when."""
    console.rule(f"What became of message {number}")
    left, began = [(task_id, 0)], None
    while left:
        current, depth = left.pop(0)
        task = door.ask("GET", f"/api/tasks/{current}")
        decision = door.ask("GET", f"/api/tasks/{current}/decision")
        events = door.ask("GET", f"/api/tasks/{current}/timeline")["events"]
        began = began or datetime.fromisoformat(events[0]["at"])
        scores = ", ".join(f"{c['agent']} {c['score']:.3g}" for c in decision["candidates"])
        indent = "  " * depth
        console.print(f"\n{indent}[bold]{task['type']}[/] {current}", highlight=False)
        console.print(
            f"{indent}router: [bold]{decision['agent']}[/], {decision['reason']} "
            f"({decision['strategy']}; {scores})",
            highlight=False,
        )
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 2 * depth))
        table.add_column(justify="right", style="dim")
        for event in events:
            after_ms = (datetime.fromisoformat(event["at"]) - began).total_seconds() * 1000
            facts = ", ".join(f"{name} {event[name]}" for name in FACTS if event.get(name))
            table.add_row(f"{after_ms:.0f} ms", event["event"], Text(facts, style="dim"))
        console.print(table)
        left += [(child, depth + 1) for child in task["children"]]


def main() -> int:
    """Show it; 1 with one line where it cannot be shown."""
    console = Console()
    try:
        door = Door()
        tasks = talk(console, door)
        for number, task_id in enumerate(tasks, 1):
            explain(console, door, number, task_id)
    except Unanswered as error:
        print(f"make demo: {error}", file=sys.stderr)
        return 1
    console.print(f"\nMore of a task: .venv/bin/orchestrator show {tasks[1]}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
