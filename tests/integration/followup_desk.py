"""A desk with the follow-up agent, conversations as they come about, and a worker in this process
that runs real handlers on the tasks of the store."""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from agents.quotes import NewQuote, Quote
from agents.stores import stores_of
from orchestrator.context import Writer, ordering_key
from orchestrator.engine import Engine
from orchestrator.tasks import Request

WRITER = Writer("conversation_agent", frozenset({"language", "name"}))


@dataclass
class FollowupDesk:
    """Acts on an engine at the time of its clock."""

    engine: Engine
    workers: Any

    @property
    def now(self) -> dt.datetime:
        return self.engine.clock.now()

    # -- customers ---------------------------------------------------------------------

    def said(
        self,
        session_id: str,
        intent: str = "pregunta",
        *,
        phone: str | None = None,
        trusted: bool = True,
        channel: str = "web",
        language: str = "es",
        name: str | None = None,
        text: str = "hola",
    ) -> str:
        """A customer's message, answered by the bot; the id of its task."""
        engine = self.engine
        session = engine.sessions.open(
            session_id,
            phone,
            caller="local",
            channel=channel,
            trusted=trusted and phone is not None,
        )
        request = Request(
            "process_message", {"message": text}, ordering_key=ordering_key(session.id)
        )
        task, _ = engine.store.accept(request, agent="a", queue="q", decision={}, epoch=0)
        head = engine.store.promote(task.key or "", 0)
        assert head is not None
        claim = engine.store.claim(head.id, head.fence, "test")
        assert claim is not None
        burst = engine.sessions.begin(session.id, claim.task)
        silent = burst.session.owner != "bot"
        engine.sessions.commit(
            burst,
            writer=WRITER,
            reply={"text": "" if silent else "claro"},
            shared={"language": language, "name": name},
            intent=intent,
        )
        engine.store.finish(claim, {"text": "claro"})
        facts = {"session_id": session.id, "text": text}
        engine.workflows.message_received(session.id, task.id, task.created_at, facts)
        return task.id

    def quoted(self, session_id: str, *, days: int = 15, language: Any = "es") -> Quote:
        """A quote that the customer of a session has."""
        quotes = stores_of(self.engine).quotes
        task, _ = self.engine.store.accept(
            Request("create_quote", {}), agent="a", queue="q", decision={}, epoch=0
        )
        # It is only there for its id.
        self.engine.store.cancel(task, {"code": "cancelled"})
        quote = quotes.store_once(
            NewQuote(
                id=task.id,
                session=session_id,
                customer_name=None,
                customer_phone=None,
                language=language,
                product="Isodec 100 mm",
                description="Isodec 100 mm, 10 × 5 m, blanco",
                items=({"unit_price_per_m2": "150.00", "description": "Isodec"},),
                total=Decimal("7500.00"),
                tax=Decimal("1352.46"),
                tax_rate=Decimal("0.22"),
                currency="UYU",
                validity_days=days,
                catalogue_version=1,
            )
        )
        return quotes.change(quote.id, "send")

    # -- the desk ----------------------------------------------------------------------

    def accept(self, task_type: str, payload: dict[str, Any] | None = None) -> Any:
        task, _ = self.engine.coordinator.submit(Request(task_type, payload or {}, caller="test"))
        return task

    def ask(self, task_type: str, payload: dict[str, Any] | None = None) -> Any:
        """Accept a task of the agent, run it and what follows; its result."""
        task = self.accept(task_type, payload)
        self.work()
        ended = self.engine.store.get(task.id)
        assert ended.error is None, ended.error
        return ended.result

    def work(self) -> list[str]:
        """Run what is queued and due until nothing is."""
        return list(self.workers.work(100_000))

    def tick(self) -> None:
        """What the rescuer and the worker do at a moment."""
        self.work()
        while self.engine.workflows.advance_due(1_000):
            self.work()

    def followups(self, **query: Any) -> list[dict[str, Any]]:
        return list(self.engine.database["followups"].find(query).sort("_id", 1))

    def spoken(self, session_id: str) -> list[tuple[str, str]]:
        """What was said in a session: role and text."""
        session = self.engine.sessions.get(session_id)
        return [(each.role, each.text) for each in self.engine.sessions.messages(session)]
