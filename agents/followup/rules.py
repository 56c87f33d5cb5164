"""The rules by which the desk writes to customers by itself, as their file says them.

Keeps secret how the file is written down. It is checked as a whole when it is read, with file
and line of everything that is wrong.
"""

import datetime as dt
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from agents.data_file import DataFileInvalid, read
from agents.followups import BY_HAND
from agents.messages import MessageKind
from orchestrator.definitions import seconds
from orchestrator.errors import BadSettings
from orchestrator.expressions import BadExpression, names_of

SHIPPED_RULES: Final = Path(__file__).parents[1] / "followups.yaml"
LONGEST: Final = dt.timedelta(days=90)
# What conditions can be over.
ROOTS: Final = frozenset({"session", "quote"})

Trigger = Literal["quote_sent", "quote_expiring", "quote_accepted", "conversation_idle"]


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        found = dt.timedelta(seconds=seconds(value))
    except (KeyError, ValueError, OverflowError):
        raise ValueError("must be a duration such as 90s, 30m, 24h or 7d") from None
    if not dt.timedelta(0) <= found <= LONGEST:
        raise ValueError("must be from 0s to 90d")
    return found


def _condition(text: str) -> str:
    try:
        unknown = names_of(text) - ROOTS
    except BadExpression as error:
        raise ValueError(error.detail) from None
    if unknown:
        raise ValueError(f"knows session and quote, not {', '.join(sorted(unknown))}")
    return text


Duration = Annotated[dt.timedelta, BeforeValidator(_duration)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CustomerCap(_Model):
    """At most so many to one customer within any such stretch of time."""

    most: int = Field(ge=1, le=100)
    within: Duration


class Caps(_Model):
    """Over all rules."""

    per_customer: tuple[CustomerCap, ...] = Field((), max_length=10)
    # A day's book is one document, and is read at each follow-up.
    per_day: int = Field(300, ge=1, le=5_000)
    per_minute: int = Field(20, ge=1, le=1_000)


class RuleCaps(_Model):
    """Of one rule, beside those over all."""

    per_customer: CustomerCap | None = None
    per_day: int | None = Field(None, ge=1, le=5_000)


class Rule(_Model):
    """One reason to write.

    `after` counts from when the trigger became true (`before`, for a quote that expires, from its
    end); the customer has been silent for `quiet` as well. Later than `until` after that it is too
    late. Of several for one customer the highest `priority` goes first.
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")
    on: Trigger
    after: Duration | None = None
    before: Duration | None = None
    quiet: Duration = dt.timedelta(hours=1)
    until: Duration = dt.timedelta(days=7)
    condition: Annotated[str, Field(max_length=500), AfterValidator(_condition)] | None = Field(
        None, alias="if"
    )
    message: MessageKind
    priority: int = Field(50, ge=0, le=100)
    caps: RuleCaps = RuleCaps()

    @model_validator(mode="after")
    def _fits(self) -> "Rule":
        if self.id == BY_HAND:
            raise ValueError(f"id must not be {BY_HAND}")
        wanted, other = ("before", "after") if self.on == "quote_expiring" else ("after", "before")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            raise ValueError(f"a rule on {self.on} needs {wanted}, and has no {other}")
        if self.message == "custom":
            raise ValueError("custom is for messages by hand")
        if self.on == "conversation_idle" and self.message != "conversation_idle":
            raise ValueError("without a quote the message is conversation_idle")
        return self

    @property
    def lag(self) -> dt.timedelta:
        """For how long a conversation has to be untouched before the rule can hold at all."""
        return self.quiet if self.after is None else max(self.after, self.quiet)


class Rules(_Model):
    """What the file holds."""

    caps: Caps = Caps()
    spread: Duration = dt.timedelta(hours=1)
    effect_within: Duration = dt.timedelta(days=7)
    rules: tuple[Rule, ...] = Field(max_length=50)

    @model_validator(mode="after")
    def _differ(self) -> "Rules":
        ids = [rule.id for rule in self.rules]
        twice = sorted({each for each in ids if ids.count(each) > 1})
        if twice:
            raise ValueError(f"several rules have the id {', '.join(twice)}")
        return self

    def rule(self, rule_id: str) -> Rule | None:
        """The rule of an id, if there is one (still)."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)

    @property
    def memory(self) -> dt.timedelta:
        """For how long a customer's book has to remember what went out."""
        caps = [*self.caps.per_customer]
        caps += [rule.caps.per_customer for rule in self.rules if rule.caps.per_customer]
        return max((cap.within for cap in caps), default=dt.timedelta(days=1))


@lru_cache(maxsize=4)
def load_rules(path: Path | None = None) -> Rules:
    """The rules of a file; without a path, those that ship. Read once per process.

    Raises:
        BadSettings: the file cannot be used; with everything that is wrong in it.
    """
    try:
        return read(path or SHIPPED_RULES, Rules)
    except (DataFileInvalid, OSError) as error:
        raise BadSettings(f"FOLLOWUPS_FILE: {error}") from error


def by_hand(message: Any, priority: int) -> Rule:
    """A follow-up that a person scheduled, as a rule: only its time is its own."""
    return Rule.model_construct(
        id=BY_HAND,
        on="conversation_idle",
        after=dt.timedelta(0),
        before=None,
        quiet=dt.timedelta(0),
        until=dt.timedelta(days=7),
        condition=None,
        message=message,
        priority=priority,
        caps=RuleCaps(),
    )
