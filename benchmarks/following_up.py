"""What finding customers to write to costs, at few and at many conversations.

Each conversation was touched at a time of the last ten days. A first time, a rule looks at all of
them; then the passes that beat asks for find nothing, and must not cost more where there are more
conversations.
"""

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from agents.followup.agent import agent
from agents.followup.sending import Sending
from orchestrator.engine import Engine
from orchestrator.settings import Settings

PASSES = 20
CHUNK = 2000
SPAN = dt.timedelta(days=10)
# Conversations that the rule has to look at, and that nothing is to be sent to.
RULES = """
rules:
  - {id: idle, on: conversation_idle, after: 1h, until: 30d, message: conversation_idle,
     if: session.intent != 'general'}
  - {id: unanswered, on: quote_sent, after: 1h, until: 30d, message: quote_sent}
"""


@dataclass(frozen=True)
class Following:
    """An idle pass at few and at many conversations, and the first look at all of them."""

    sessions: int
    few: int
    few_ms: float
    many_ms: float
    looked_at_per_s: float


def following(
    sessions: int, mongodb_uri: str, redis_url: str, directory: Path, step: Callable[[str], None]
) -> Following:
    """Measure on a desk of its own."""
    rules = directory / "followups.yaml"
    rules.write_text(RULES)
    engine = Engine(
        Settings(
            redis_url=redis_url,
            mongodb_uri=mongodb_uri,
            mongodb_database="followups",
            followups_file=rules,
        )
    )
    engine.init([agent])
    few = max(sessions // 100, 10)
    step(f"{few:,} conversations")
    _fill(engine, 0, few)
    _catch_up(engine)
    few_ms = _idle_ms(engine)
    step(f"{sessions:,} conversations")
    engine.database["followup_scans"].delete_many({})
    _fill(engine, few, sessions)
    began = time.perf_counter()
    looked_at = _catch_up(engine)
    rate = looked_at / (time.perf_counter() - began)
    step("idle passes")
    many_ms = _idle_ms(engine)
    engine.close()
    return Following(sessions, few, few_ms, many_ms, rate)


def _fill(engine: Engine, first: int, last: int) -> None:
    session = engine.sessions.open(
        f"template-{first}", None, caller="local", channel="web", trusted=False
    )
    documents = engine.database["sessions"]
    template = documents.find_one({"_id": session.id})
    assert template is not None
    documents.delete_one({"_id": session.id})
    now = engine.clock.now()
    for start in range(first, last, CHUNK):
        made = []
        for n in range(start, min(start + CHUNK, last)):
            at = now - dt.timedelta(hours=2) - SPAN * (n - first) / (last - first)
            made.append(
                template
                | {"_id": f"s{n}", "opened": f"{template['opened']}{n:08d}", "seq": 1}
                | {"updated_at": at, "active_at": at, "created_at": at}
                | {"turns": [{"task_id": "t", "seq": 1, "at": at, "intent": "general"}]}
            )
        documents.insert_many(made)


def _catch_up(engine: Engine) -> int:
    looked_at = 0
    while found := Sending(engine).find(10_000)["looked_at"]:
        looked_at += found
    return looked_at


def _idle_ms(engine: Engine) -> float:
    took = []
    for _ in range(PASSES):
        began = time.perf_counter()
        Sending(engine).find(2_000)
        took.append((time.perf_counter() - began) * 1e3)
    return median(took)
