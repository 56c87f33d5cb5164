"""What the routes of follow-ups take and give, with an example of each."""

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from api.pages import NextPageToken, PageQuery
from api.schemas import Moment, SessionId, Strict, _plain

Document = dict[str, Any]
State = Literal["planned", "sent", "done", "skipped", "cancelled"]
Message = Literal["quote_sent", "quote_expiring", "quote_accepted", "conversation_idle", "custom"]
FOLLOWUP_ID = "019ab7d3d4e6000a1b2c3d4e5f607182"


class FollowupRequest(Strict):
    """A follow-up by hand: which message, to whom, when."""

    # Times come as text.
    model_config = ConfigDict(strict=False, extra="forbid", hide_input_in_errors=True)

    session_id: Annotated[SessionId, Field(min_length=1)] = Field(
        description="The conversation that it goes to."
    )
    message: Message = Field(
        "custom", description="One of the desk's own texts, or `custom`, which says `text`."
    )
    text: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_plain)] | None = (
        Field(None, description="What a `custom` message says.", validate_default=True)
    )
    at: Moment | None = Field(
        None,
        description="Not before this time; without it, as soon as it may go out. Hours, caps and "
        "opt-outs hold for it as for all others.",
    )
    priority: int = Field(
        100, ge=0, le=100, description="Of several for one customer the highest goes first."
    )

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str | None, info: ValidationInfo) -> str | None:
        # A message that is not valid is told by itself.
        if "message" in info.data and (info.data["message"] == "custom") != (text is not None):
            raise ValueError("a custom message, and no other, has a text")
        return text


class FollowupQuery(PageQuery):
    """Which follow-ups; filters may be combined."""

    state: State | None = Field(None, description="Only those in this state.")
    session_id: SessionId | None = Field(None, description="Only those of this conversation.")
    rule: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")] | None = Field(
        None, description="Only those of this rule; `by_hand` is one."
    )
    since: Moment | None = Field(None, description="Planned at this time or later.")


class Followup(BaseModel):
    """A follow-up as it stands."""

    id: str
    rule: str = Field(description="The rule that it is due by, or `by_hand`.")
    message: Message
    text: str | None = Field(description="What is to be said, where a person wrote it.")
    session_id: str | None = Field(description="Null once the customer was erased.")
    quote_id: str | None
    by: str = Field(description="`rule`, or who scheduled it.")
    priority: int
    state: State
    due_at: dt.datetime = Field(description="When it goes out next, as far as is known.")
    why: Document | None = Field(description="What the last look at it found; `code` is stable.")
    run_id: str | None = Field(description="The workflow run that it lives in.")
    created_at: dt.datetime
    updated_at: dt.datetime
    sent_at: dt.datetime | None
    answer: Document | None = Field(description="The customer's first message after it.")
    counts: dict[str, int] = Field(description="What came of it, 0 or 1 each.")


class Followups(BaseModel):
    """A page of follow-ups, the newest first."""

    followups: list[Followup]
    next_page_token: NextPageToken = None


FOLLOWUP: Document = {
    "id": FOLLOWUP_ID,
    "rule": "quote_unanswered",
    "message": "quote_sent",
    "text": None,
    "session_id": "juan",
    "quote_id": "019ab7c1f2a300041b2c3d4e5f607182",
    "by": "rule",
    "priority": 70,
    "state": "planned",
    "due_at": "2026-11-27T12:24:10Z",
    "why": {"code": "closed", "until": "2026-11-27T12:24:10Z"},
    "run_id": "019ab7d3d4e7000b2c3d4e5f60718293",
    "created_at": "2026-11-27T03:10:00Z",
    "updated_at": "2026-11-27T03:10:00Z",
    "sent_at": None,
    "answer": None,
    "counts": {"answered": 0, "accepted": 0, "rejected": 0, "opted_out": 0, "not_delivered": 0},
}
EXAMPLES: dict[str, Any] = {
    "FollowupRequest": {
        "session_id": "juan",
        "text": "Llegaron las canaletas que preguntaste.",
        "at": "2026-11-30T10:00:00-03:00",
    },
    "Followup": FOLLOWUP,
    "Followups": {"followups": [FOLLOWUP], "next_page_token": "WyJmIiwiMDE5YWIiXQ"},
}
