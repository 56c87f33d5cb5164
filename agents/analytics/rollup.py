"""Tallies of hours and days, kept so that a year is read as 365 documents.

Keeps secret how they stay right. Each part of an hour is worked out as a whole from what it is
made of and written over what was there: doing it again changes nothing. What comes late (a
conversation that goes on, a quote that is accepted days later, a dead letter that is replayed)
has its hour worked out again, and the day of that hour. What is no longer there to be counted
(tasks go after their retention, customers are erased) is not counted again: the part of tasks
is final once all of them are; of conversations, facts that say nothing of anybody are kept
under a keyed hash.

Collection `report_hours`, one document per hour (UTC):

    _id          "2026-11-27T14"
    tasks        `Tally` of the tasks accepted in it; what a task handed over and the steps of a
                 workflow run are accepted with the task and the run that they belong to
    decisions    `Tally` of the quotes accepted, rejected or run out in it
    conversations, quotes, followups
                 `Tally` of those that began, were made, were sent in it
    dead         how many of its tasks are dead letters, replayed ones among them; or missing
    slots        {agent: {minute: slots of its live workers}}, as far as somebody looked
    unsettled_at when its tasks are looked at again; missing once all of them are final
    effects_at   when its follow-ups are; missing once nothing more is measured of them
    expire_at

Collection `report_days`, one document per day of the business: {_id "2026-11-27", tally,
expire_at}, made of its hours (where a zone is off by less than an hour, days begin with the
hour that contains midnight).

Collection `conversation_facts`: {_id keyed hash of a session, ...`facts.facts_of`, expire_at}.

Collection `report_progress`: {_id "rollup", seen_at: all that changed before was counted}.

Written by this module only.
"""

import datetime as dt
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

from pymongo import ReplaceOne
from pymongo.database import Database

from agents.analytics.facts import (
    TASK_FIELDS,
    count_conversation,
    count_decision,
    count_quote,
    count_task,
    facts_of,
    joined,
    settled,
    tally_of_effects,
)
from agents.analytics.measures import HOUR_MS
from agents.analytics.tally import Tally, key, merged
from agents.followups import FollowupStore
from agents.quotes import QuoteState
from orchestrator.advance import RunState
from orchestrator.clock import Clock
from orchestrator.keys import SigningKey
from orchestrator.settings import Settings
from orchestrator.tasks import earlier_than, ensure_index, id_at, store_errors, time_of_id

Document = dict[str, Any]

HOUR: Final = dt.timedelta(hours=1)
ONE_DAY: Final = dt.timedelta(days=1)
# Whoever wrote shortly before the last look may have had an older clock, or been slow.
OVERLAP: Final = dt.timedelta(minutes=2)
# Hours with tasks that are not final are looked at again so often.
LOOK_AGAIN: Final = dt.timedelta(minutes=10)
LOOK_AGAIN_AT_MOST: Final = dt.timedelta(hours=6)
BATCH: Final = 200
PARTS: Final = ("tasks", "decisions", "conversations", "quotes", "followups")
DECIDED: Final = tuple(state for state in QuoteState if not state.open)
LONG_AGO: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_SESSION_FIELDS: Final = (
    *("channel", "owner", "waiting_since", "turns", "created_at", "updated_at"),
    "context.shared.objections",
)
_QUOTE_FIELDS: Final = (
    *("state", "superseded_by", "channel", "items.product", "items.total", "currency", "total"),
    *("history", "created_at", "session"),
)


def hour_of(time: dt.datetime) -> dt.datetime:
    """The beginning of its hour, in UTC."""
    return time.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)


def hours_between(since: dt.datetime, until: dt.datetime) -> Iterator[dt.datetime]:
    """The hours that begin from `since` to before `until`."""
    hour = hour_of(since)
    hour = hour if hour >= since else hour + HOUR
    while hour < until:
        yield hour
        hour += HOUR


def _name(hour: dt.datetime) -> str:
    return hour.strftime("%Y-%m-%dT%H")


def hour_named(name: str) -> dt.datetime:
    """The inverse of an hour's id."""
    return dt.datetime.strptime(name, "%Y-%m-%dT%H").replace(tzinfo=dt.UTC)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    left = iter(documents)
    while batch := list(itertools.islice(left, BATCH)):
        yield batch


class RollUp:
    """Every method raises StoreUnavailable when MongoDB does not answer in time."""

    def __init__(
        self,
        database: Database[Document],
        clock: Clock,
        settings: Settings,
        followups: FollowupStore,
    ) -> None:
        self._followups = followups
        self._hours = database["report_hours"]
        self._days = database["report_days"]
        self._facts = database["conversation_facts"]
        self._progress = database["report_progress"]
        self._tasks = database["tasks"]
        self._quotes = database["quotes"]
        self._sessions = database["sessions"]
        self._audit = database["audit"]
        self._runs = database["runs"]
        self._key = SigningKey(database, "conversation_facts")
        self._clock = clock
        self.zone = ZoneInfo(settings.business_zone)
        self._kept = dt.timedelta(days=settings.analytics_retention_days)
        self._tasks_kept = dt.timedelta(days=settings.task_retention_days) - HOUR

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        ensure_index(self._hours, "unsettled", "unsettled_at")
        ensure_index(self._hours, "effects", "effects_at")
        ensure_index(self._hours, "dead", "dead")
        ensure_index(self._facts, "began", "began_at")
        for each in (self._hours, self._days, self._facts):
            ensure_index(each, "expiry", "expire_at", expireAfterSeconds=0)

    # -- keeping up ---------------------------------------------------------------------

    def bring_up_to(self, now: dt.datetime, *, with_open_hour: bool = True) -> dict[str, int]:
        """Count what has happened or changed since the last time.

        With `with_open_hour` the hour that is not over yet as well, as far as it is known. Cut
        short anywhere, the next time does it again. Returns how much there was.
        """
        with store_errors():
            known = self._progress.find_one({"_id": "rollup"})
            seen = LONG_AGO if known is None else known["seen_at"] - OVERLAP
            began = self._facts_since(seen)
            made, decided = self._quotes_since(seen)
            dirty: dict[str, set[dt.datetime]] = {
                "conversations": began,
                "quotes": made,
                "decisions": decided,
                "tasks": self._replayed_since(seen) | self._due("unsettled_at", now),
                "followups": self._due("effects_at", now),
            }
            # Of the hour that was open then, all parts.
            recent = set(hours_between(hour_of(self._first_task(seen)), now))
            dirty = {part: hours | recent for part, hours in dirty.items()}
            if not with_open_hour:
                dirty = {part: hours - {hour_of(now)} for part, hours in dirty.items()}
            touched = self._recount(dirty, now)
            self._progress.update_one({"_id": "rollup"}, {"$set": {"seen_at": now}}, upsert=True)
        return {
            "hours": len(touched),
            "conversations": len(began),
            "quotes": len(made | decided),
        }

    def recount(self, hours: Iterable[dt.datetime]) -> None:
        """Work hours out anew, all parts of them, and their days."""
        wanted = set(hours)
        with store_errors():
            self._recount(dict.fromkeys(PARTS, wanted), self._clock.now())

    def saw_slots(self, now: dt.datetime, slots: dict[str, int]) -> None:
        """Note how many slots live workers have, by agent; once a minute is enough."""
        fields = {f"slots.{agent}.{now.minute}": n for agent, n in slots.items()}
        if fields:
            with store_errors():
                self._write(hour_of(now), fields)

    def _recount(self, dirty: dict[str, set[dt.datetime]], now: dt.datetime) -> set[dt.datetime]:
        touched: set[dt.datetime] = set().union(*dirty.values())
        for hour in sorted(touched):
            fields: Document = {}
            unset: Document = {}
            if hour in dirty["tasks"] and now - hour < self._tasks_kept:
                tally, all_settled = self._count_tasks(hour)
                fields["tasks"] = tally.to_document()
                if dead := tally.counts["dead_letters"]:
                    fields["dead"] = dead
                if all_settled and hour + HOUR + OVERLAP <= now:
                    unset["unsettled_at"] = ""
                else:
                    # What has taken days may take some more: a run that waits for weeks.
                    pause = max(LOOK_AGAIN, min((now - hour) / 20, LOOK_AGAIN_AT_MOST))
                    fields["unsettled_at"] = now + pause
            elif hour in dirty["tasks"]:
                unset["unsettled_at"] = ""
            if hour in dirty["conversations"]:
                fields["conversations"] = self._count_conversations(hour).to_document()
            if hour in dirty["quotes"]:
                fields["quotes"] = self._count_quotes(hour).to_document()
            if hour in dirty["decisions"]:
                fields["decisions"] = self._count_decisions(hour).to_document()
            if hour in dirty["followups"]:
                effects = self._followups.effects(hour, hour + HOUR)
                fields["followups"] = tally_of_effects(effects).to_document()
                if any(effect.open for effect in effects):
                    fields["effects_at"] = now + HOUR
                else:
                    unset["effects_at"] = ""
            if fields or unset:
                self._write(hour, fields, unset)
        self._make_days(touched)
        return touched

    def _write(self, hour: dt.datetime, fields: Document, unset: Document | None = None) -> None:
        update: Document = {"$set": fields | {"expire_at": hour + self._kept}}
        if unset:
            update["$unset"] = unset
        self._hours.update_one({"_id": _name(hour)}, update, upsert=True)

    def _make_days(self, hours: Iterable[dt.datetime]) -> None:
        for day in sorted({self.day_of(hour) for hour in hours}):
            begins, ends = self.bounds(day)
            tally = self._of_day(self.hourly(begins, ends))
            document = {"tally": tally.to_document(), "expire_at": begins + self._kept}
            self._days.update_one({"_id": day.isoformat()}, {"$set": document}, upsert=True)

    def day_of(self, time: dt.datetime) -> dt.date:
        """The business's day that it is in."""
        return hour_of(time).astimezone(self.zone).date()

    def _of_day(self, hours: Mapping[dt.datetime, Tally]) -> Tally:
        """Hours added up; of messages also how many came at which hour of the day."""
        tally = merged(hours.values())
        for hour, each in hours.items():
            if n := each.counts["messages"]:
                clock = f"{hour.astimezone(self.zone).hour:02}"
                tally.counts[key("messages", hour=clock)] += n
        return tally

    def bounds(self, day: dt.date) -> tuple[dt.datetime, dt.datetime]:
        """When a day of the business begins and ends, on the hour."""
        begins = dt.datetime.combine(day, dt.time(), self.zone)
        ends = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), self.zone)
        return hour_of(begins), hour_of(ends)

    # -- what changed -------------------------------------------------------------------

    def _facts_since(self, seen: dt.datetime) -> set[dt.datetime]:
        """Keep the facts of conversations that have changed; the hours in which they began."""
        hours: set[dt.datetime] = set()
        for found in _batches(self._sessions.find({"updated_at": {"$gte": seen}}, _SESSION_FIELDS)):
            hours |= self._keep_facts(found)
        changed = self._quotes.find({"changed_at": {"$gte": seen}}, {"session": 1})
        for quotes in _batches(changed):
            named = {"_id": {"$in": [each["session"] for each in quotes if each["session"]]}}
            of = self._sessions.find(named, _SESSION_FIELDS)
            hours |= self._keep_facts([each for each in of if each["updated_at"] < seen])
        return hours

    def _keep_facts(self, sessions: list[Document]) -> set[dt.datetime]:
        if not sessions:
            return set()
        quotes: dict[str, list[Document]] = {each["_id"]: [] for each in sessions}
        for quote in self._quotes.find({"session": {"$in": list(quotes)}}, _QUOTE_FIELDS):
            quotes[quote["session"]].append(quote)
        names = {each["_id"]: self._facts_id(each) for each in sessions}
        known = {
            each["_id"]: each for each in self._facts.find({"_id": {"$in": [*names.values()]}})
        }
        writes, hours = [], set()
        for session in sessions:
            name = names[session["_id"]]
            facts = joined(known.get(name), facts_of(session, quotes[session["_id"]]))
            facts["expire_at"] = facts["began_at"] + self._kept
            writes.append(ReplaceOne({"_id": name}, facts, upsert=True))
            hours.add(hour_of(facts["began_at"]))
        self._facts.bulk_write(writes, ordered=False)
        return hours

    def _facts_id(self, session: Document) -> str:
        # A session that is made again under the same id, after an erasure, is another one.
        return self._key.sign(f"{session['_id']} {session['created_at'].isoformat()}")

    def _quotes_since(self, seen: dt.datetime) -> tuple[set[dt.datetime], set[dt.datetime]]:
        """The hours in which quotes that have changed were made, and in which decided."""
        made, decided = set(), set()
        fields = {"created_at": 1, "state_at": 1, "state": 1}
        for quote in self._quotes.find({"changed_at": {"$gte": seen}}, fields):
            made.add(hour_of(quote["created_at"]))
            # Of what was decided before, the reason stands as it was told then.
            if not QuoteState(quote["state"]).open and quote["state_at"] >= seen:
                decided.add(hour_of(quote["state_at"]))
        return made, decided

    def _replayed_since(self, seen: dt.datetime) -> set[dt.datetime]:
        """The hours of dead letters that somebody has replayed since."""
        since = {"_id": {"$gte": id_at(seen)}}
        ones = self._audit.find({"action": "dead_letter.replay", **since}, {"subject": 1})
        hours = {hour_of(time_of_id(act["subject"])) for act in ones}
        if self._audit.find_one({"action": "dead_letter.replay_all", **since}) is not None:
            # It does not tell which.
            with_dead = self._hours.find({"dead": {"$gt": 0}}, {"_id": 1})
            hours |= {hour_named(each["_id"]) for each in with_dead}
        return hours

    def _due(self, field: str, now: dt.datetime) -> set[dt.datetime]:
        due = self._hours.find({field: earlier_than(now)}, {"_id": 1})
        return {hour_named(each["_id"]) for each in due}

    def _first_task(self, seen: dt.datetime) -> dt.datetime:
        """From when on there may be tasks that nobody has counted."""
        if seen > LONG_AGO:
            return seen
        first = self._tasks.find({}, {"_id": 1}).sort("_id", 1).limit(1)
        return next((time_of_id(task["_id"]) for task in first), self._clock.now())

    # -- counting -----------------------------------------------------------------------

    def _count_tasks(self, hour: dt.datetime) -> tuple[Tally, bool]:
        tally, all_settled = Tally(), True
        accepted = {"_id": {"$gte": id_at(hour), "$lt": id_at(hour + HOUR)}}
        for task in self._tasks.find(accepted, TASK_FIELDS):
            count_task(tally, task)
            all_settled = all_settled and settled(task)
        # The steps of a run have ids that begin with its own, whenever they are accepted.
        runs = self._runs.find(accepted, {"state": 1})
        return tally, all_settled and all(RunState(run["state"]).final for run in runs)

    def _count_conversations(self, hour: dt.datetime) -> Tally:
        tally = Tally()
        for facts in self._facts.find({"began_at": {"$gte": hour, "$lt": hour + HOUR}}):
            count_conversation(tally, facts)
        return tally

    def _count_quotes(self, hour: dt.datetime) -> Tally:
        tally = Tally()
        made = {"created_at": {"$gte": hour, "$lt": hour + HOUR}}
        for quote in self._quotes.find(made, _QUOTE_FIELDS):
            count_quote(tally, quote)
        return tally

    def _count_decisions(self, hour: dt.datetime) -> Tally:
        tally = Tally()
        for state in DECIDED:
            since = {"state": state.value, "state_at": {"$gte": hour, "$lt": hour + HOUR}}
            for quote in self._quotes.find(since, _QUOTE_FIELDS):
                session = quote["session"] and self._sessions.find_one({"_id": quote["session"]})
                facts = session and self._facts.find_one({"_id": self._facts_id(session)})
                count_decision(tally, quote, facts)
        return tally

    # -- reading ------------------------------------------------------------------------

    def hourly(self, since: dt.datetime, until: dt.datetime) -> dict[dt.datetime, Tally]:
        """The tallies of hours that begin from `since` to before `until`; empty ones are left
        out."""
        named = {"_id": {"$gte": _name(hour_of(since)), "$lt": _name(until)}}
        if hour_of(until) < until:
            named["_id"]["$lt"] = _name(hour_of(until) + HOUR)
        with store_errors():
            return {
                hour_named(document["_id"]): _tally_of(document)
                for document in self._hours.find(named).sort("_id", 1)
            }

    def by_day(self, since: dt.datetime, until: dt.datetime) -> dict[dt.date, Tally]:
        """What each of the business's days between two times comes to, of days that are cut
        only the hours that are within; empty ones are left out."""
        first, last = self.day_of(since), self.day_of(until - HOUR)
        whole_from = first if self.bounds(first)[0] >= since else first + ONE_DAY
        whole_to = last + ONE_DAY if self.bounds(last)[1] <= until else last
        found = self.daily(whole_from, whole_to) if whole_from < whole_to else {}
        for day in {first, last}:
            if whole_from <= day < whole_to:
                continue
            begins, ends = self.bounds(day)
            hours = self.hourly(max(begins, since), min(ends, until))
            if hours:
                found[day] = self._of_day(hours)
        return dict(sorted(found.items()))

    def counted_since(self, moment: dt.datetime) -> bool:
        """Whether anything was counted on the day of a moment, or on one before it."""
        named = {"_id": {"$lte": self.day_of(moment).isoformat()}}
        with store_errors():
            return self._days.find_one(named, {"_id": 1}) is not None

    def daily(self, since: dt.date, until: dt.date) -> dict[dt.date, Tally]:
        """The tallies of the business's days from `since` to before `until`; empty ones are
        left out."""
        named = {"_id": {"$gte": since.isoformat(), "$lt": until.isoformat()}}
        with store_errors():
            return {
                dt.date.fromisoformat(document["_id"]): Tally.from_document(document["tally"])
                for document in self._days.find(named).sort("_id", 1)
            }


def _tally_of(document: Document) -> Tally:
    tally = merged(Tally.from_document(document[part]) for part in PARTS if part in document)
    for agent, minutes in document.get("slots", {}).items():
        # An hour's workers were there for all of it, as far as was looked.
        slot_ms = round(HOUR_MS * sum(minutes.values()) / len(minutes))
        tally.counts[key("slot_ms", agent=agent)] += slot_ms
    return tally
