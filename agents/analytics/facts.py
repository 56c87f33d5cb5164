"""What a task, a conversation and a quote count for. Pure: documents in, a `Tally` out.

The documents are those of the collections `tasks`, `conversation_facts` and `quotes`, with the
fields that are named here. What is counted under which key stands with the measures that are
made of it (`measures.py`); the words of design.md hold.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from agents.analytics.tally import Tally
from agents.followups import Effect
from agents.quotes import QuoteState
from orchestrator.tasks import FINAL, State, time_of_id

Document = dict[str, Any]

MESSAGES: Final = frozenset({"process_message", "process_media"})
UNKNOWN: Final = "unknown"  # of what was erased before it was counted
DIRECT: Final = "direct"  # a quote that no conversation asked for
REVISED: Final = "revised"  # a quote that a later version stands for
# All that is read of a task.
TASK_FIELDS: Final = (
    *("type", "agent", "state", "seq", "failures", "crashes", "parent", "erased", "was"),
    *("queued_at", "started_at", "finished_at"),
    *("payload.channel", "result.owner", "result.intent"),
)


def settled(task: Mapping[str, Any]) -> bool:
    """Nothing of the task changes any more by itself."""
    return State(task["state"]) in FINAL


def count_task(tally: Tally, task: Mapping[str, Any]) -> None:
    """Count a task in the stretch of time in which it was accepted.

    A shell, left of what was erased, counts as what it was before.
    """
    was = task.get("was") or {}
    state = was.get("state", task["state"]) if task.get("erased") else task["state"]
    seq = was.get("seq") if task.get("erased") else task.get("seq")
    agent = {"agent": task["agent"]}
    tally.count(
        "tasks",
        agent,
        {"state": state},
        {"agent": task["agent"], "state": state},
        {"type": task["type"], "state": state},
    )
    if tries := task.get("failures", 0):
        tally.count("errors", agent, by=tries)
    if lost := task.get("crashes", 0):
        tally.count("crashes", agent, by=lost)
    if state == State.FAILED and task.get("parent") is None:
        tally.count("dead_letters", agent)
    _count_times(tally, task, agent, completed=state == State.COMPLETED)
    if task["type"] in MESSAGES:
        _count_message(tally, task, state, seq)


def _count_times(
    tally: Tally, task: Mapping[str, Any], agent: dict[str, str], *, completed: bool
) -> None:
    queued, started, ended = (task.get(f"{name}_at") for name in ("queued", "started", "finished"))
    if queued is not None and started is not None:
        tally.time("wait", _ms(queued, started), agent)
    if completed and started is not None and ended is not None:
        run_ms = _ms(started, ended)
        tally.time("run", run_ms, agent)
        tally.count("busy_ms", agent, by=round(run_ms))


def _count_message(tally: Tally, task: Mapping[str, Any], state: str, seq: int | None) -> None:
    channel = {"channel": task.get("payload", {}).get("channel") or UNKNOWN}
    tally.count("messages", channel)
    if state == State.FAILED:
        tally.count("messages_failed", channel)
    if state != State.COMPLETED:
        return
    answer = task.get("result") or {}
    if answer.get("owner") == "human" and "intent" not in answer:
        return  # a person has the conversation, and answers in a time of their own
    if (ended := task.get("finished_at")) is not None:
        answer_ms = _ms(time_of_id(task["_id"]), ended)
        tally.time("answer", answer_ms, channel)
        if seq == 1:
            tally.time("first_answer", answer_ms, channel)
    if answer.get("owner") == "human":
        tally.count("handovers", channel)


def _ms(start: dt.datetime, end: dt.datetime) -> float:
    return max(0.0, (end - start).total_seconds() * 1000)


# -- conversations -----------------------------------------------------------------------


def facts_of(session: Mapping[str, Any], quotes: Iterable[Mapping[str, Any]]) -> Document:
    """What counts of a conversation: nothing that says whose it is, or what was said.

    {began_at, channel, turns, asked, offered, accepted, turns_to_quote, objections, to_person}
    """
    turns = session.get("turns") or []
    made = sorted(quotes, key=lambda quote: quote["created_at"])
    states = [QuoteState(quote["state"]) for quote in made]
    first = made[0]["created_at"] if made else None
    # The turn that made the quote is committed after it.
    before = [turn for turn in turns if first is not None and turn["at"] < first]
    return {
        "began_at": session["created_at"],
        "channel": session["channel"],
        "turns": len(turns),
        "asked": bool(made) or any(turn.get("intent") == "cotizacion" for turn in turns),
        "offered": any(map(was_sent, made)),
        "accepted": QuoteState.ACCEPTED in states,
        "turns_to_quote": len(before) + 1 if made else None,
        "objections": sorted(session.get("context", {}).get("shared", {}).get("objections") or ()),
        "to_person": session["owner"] == "human" or session.get("waiting_since") is not None,
    }


def joined(known: Mapping[str, Any] | None, new: Mapping[str, Any]) -> Document:
    """The facts of a conversation after more of it was seen: what was once so stays so, though
    its turns or quotes are gone."""
    facts = dict(new)
    if known is None:
        return facts
    for name in ("asked", "offered", "accepted", "to_person"):
        facts[name] = known[name] or new[name]
    facts["turns"] = max(known["turns"], new["turns"])
    if known["turns_to_quote"] is not None:
        facts["turns_to_quote"] = known["turns_to_quote"]
    facts["objections"] = sorted({*known["objections"], *new["objections"]})
    return facts


def count_conversation(tally: Tally, facts: Mapping[str, Any]) -> None:
    """Count a conversation in the stretch of time in which it began. One in which nothing was
    said yet is none."""
    if not facts["turns"]:
        return
    channel = {"channel": facts["channel"]}
    tally.count("sessions", channel)
    # A step of the funnel holds all that came further, whatever was seen of it on the way.
    offered = facts["offered"] or facts["accepted"]
    if facts["asked"] or offered:
        tally.count("sessions_asked", channel)
    if offered:
        tally.count("sessions_offered", channel)
    if facts["accepted"]:
        tally.count("sessions_accepted", channel)
    if facts["turns_to_quote"]:
        tally.time("turns_to_quote", facts["turns_to_quote"], channel)
    if facts["to_person"]:
        tally.count("sessions_to_person", channel)
    for kind in facts["objections"]:
        tally.count("objections", {"kind": kind}, channel)
        if facts["accepted"]:
            tally.count("objections_overcome", {"kind": kind}, channel)


# -- quotes ------------------------------------------------------------------------------


def was_sent(quote: Mapping[str, Any]) -> bool:
    """The customer has had it: as recorded, or since it was answered."""
    seen = {each["state"] for each in quote["history"]}
    return bool(seen & {"sent", "accepted", "rejected"})


def count_quote(tally: Tally, quote: Mapping[str, Any]) -> None:
    """Count a quote in the stretch of time in which it was made, by what has become of it.

    One that a later version stands for counts as `revised`, and its value not at all: what was
    offered is what the last version says.
    """
    state = REVISED if quote["superseded_by"] is not None else quote["state"]
    channel = {"channel": quote.get("channel") or DIRECT}
    products = [{"product": each} for each in sorted({i["product"] for i in quote["items"]})]
    tally.count("quotes", channel, *products, {"state": state})
    if state == REVISED:
        return
    currency = {"currency": quote["currency"]}
    offered, accepted = was_sent(quote), state == QuoteState.ACCEPTED
    if offered:
        tally.count("quotes_offered", channel, *products)
    if accepted:
        tally.count("quotes_accepted", channel, *products)
    for name, counts in (("quoted", offered), ("won", accepted)):
        if not counts:
            continue
        tally.add_money(name, quote["total"].to_decimal(), currency, currency | channel)
        for item in quote["items"]:
            part = currency | {"product": item["product"]}
            tally.add_money(name, Decimal(item["total"]), part)


def count_decision(tally: Tally, quote: Mapping[str, Any], facts: Mapping[str, Any] | None) -> None:
    """Count what became of a quote in the stretch of time in which that was decided.

    `facts` are those of its conversation, None where there is none. A quote that was not
    accepted is lost for the price or the delay where the customer said so, for silence where it
    ran out and nothing was said, else for other reasons.
    """
    if quote["superseded_by"] is not None or not was_sent(quote):
        return
    channel = {"channel": quote.get("channel") or DIRECT}
    tally.count("decided", channel, {"state": quote["state"]})
    if quote["state"] == QuoteState.ACCEPTED:
        return
    objections = (facts or {}).get("objections", ())
    reason = next((each for each in ("price", "delay") if each in objections), None)
    if reason is None:
        reason = "silence" if quote["state"] == QuoteState.EXPIRED else "other"
    tally.count("lost", channel, {"reason": reason})


# -- follow-ups --------------------------------------------------------------------------


def tally_of_effects(effects: Iterable[Effect]) -> Tally:
    """What came of the follow-ups that went out in a stretch of time."""
    tally = Tally()
    for effect in effects:
        for name in ("sent", "answered", "accepted", "opted_out"):
            if n := getattr(effect, name):
                tally.count(f"followups_{name}", {"rule": effect.rule}, by=n)
    return tally
