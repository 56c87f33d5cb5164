"""What goes in and out, as pydantic models: validation at the edge, and the source of OpenAPI.

Chat is spoken in two dialects. A request may use either set of names, also mixed; a reply
carries both.
"""

import datetime as dt
import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
)
from pydantic_core import PydanticCustomError

from api.inputs import pointer
from api.pages import NextPageToken, PageQuery
from orchestrator import phones
from orchestrator.context import MAX_MESSAGE_CHARS
from orchestrator.errors import Invalid
from orchestrator.outbox import EntryState, OutboxFilter
from orchestrator.phones import HOME_REGION
from orchestrator.settings import StrategyName
from orchestrator.tasks import State, TaskFilter

MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}")
Document = dict[str, Any]


def _plain(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be empty")
    return _printable(text)


def _printable(text: str) -> str:
    if any(unicodedata.category(char) == "Cc" and char not in "\t\n\r" for char in text):
        raise PydanticCustomError("control_character", "must not hold control characters")
    return text


def _written_out(value: object) -> object:
    if not isinstance(value, str) or not MOMENT.match(value):
        raise PydanticCustomError("moment", "must be a time such as 2026-11-24T19:05:11Z")
    return value


Text = Annotated[str, Field(max_length=MAX_MESSAGE_CHARS), AfterValidator(_plain)]
SessionId = Annotated[str, Field(max_length=128), AfterValidator(_printable)]
Phone = Annotated[str, Field(max_length=40), AfterValidator(_printable)]
# Pydantic also reads numbers as times; ours are as RFC 3339 writes them.
Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")]


class Strict(BaseModel):
    """A body: types as JSON has them, no unknown names."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


@dataclass(frozen=True)
class Turn:
    """A customer's message, whichever dialect it came in."""

    message: str
    phone: str | None  # E.164
    session_id: str | None
    channel: str
    language: Literal["es", "en"] | None
    spanish_names: bool


class ChatMessage(Strict):
    """A customer's message."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["message"]}, {"required": ["mensaje"]}],
            "examples": [
                {"message": "Isodec 100 mm for 10 x 5 m, please", "phone": "+59899123456"},
                {"mensaje": "Isodec de 100 para 10x5", "telefono": "099123456", "sesionId": None},
            ],
        }
    )

    message: Text | None = Field(None, description="The customer's text.")
    mensaje: Text | None = Field(None, description="The same as `message`.")
    phone: Phone | None = Field(
        None,
        description="The customer's phone in any usual way of writing; without a country code it "
        f"is from {HOME_REGION}.",
    )
    telefono: Phone | None = Field(None, description="The same as `phone`.")
    session_id: SessionId | None = Field(
        None, description="The conversation; without one, the phone's open one or a new one."
    )
    sesionId: SessionId | None = Field(None, description="The same as `session_id`.")
    sesion_id: SessionId | None = Field(None, description="The same as `session_id`.")
    channel: Name = Field("web", description="Where the customer writes.")
    language: Literal["es", "en"] | None = Field(
        None, description="The customer's language where it is known."
    )

    def turn(self) -> Turn:
        """The message without its dialect.

        Raises:
            Invalid: no text, names of one meaning with different values, or no phone number.
        """
        message, message_name = self._one_of("message", "mensaje")
        phone, phone_name = self._one_of("phone", "telefono")
        session_id, session_name = self._one_of("session_id", "sesionId", "sesion_id")
        if message is None:
            raise _invalid("message", "message (or mensaje) is required")
        return Turn(
            message=message,
            phone=e164(phone, phone_name) if phone else None,
            session_id=session_id,
            channel=self.channel,
            language=self.language,
            spanish_names=bool(
                {message_name, phone_name, session_name} & {"mensaje", "telefono", "sesionId"}
            ),
        )

    def _one_of(self, *names: str) -> tuple[str | None, str]:
        """The value given under any of these names, and that name; empty counts as absent."""
        given = {name: value for name in names if (value := getattr(self, name))}
        if len(set(given.values())) > 1:
            raise _invalid(list(given)[1], f"differs from {next(iter(given))}")
        return next(((value, name) for name, value in given.items()), (None, ""))


def e164(phone: str, *field: str) -> str:
    """A phone number in E.164 form.

    Raises:
        Invalid: it is no phone number; points at `field`, a path into the body.
    """
    try:
        return phones.e164(phone)
    except ValueError as error:
        raise Invalid(errors=[{"pointer": pointer(*field), "detail": str(error)}]) from None


def _invalid(field: str, detail: str) -> Invalid:
    return Invalid(errors=[{"pointer": pointer(field), "detail": detail}])


class Waiting(BaseModel):
    """How long to wait."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    wait: float | None = Field(
        None, ge=0, le=30, allow_inf_nan=False, description="Longest wait, in seconds."
    )


class Resuming(BaseModel):
    """Where a stream goes on."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    last_event_id: int | None = Field(
        None,
        ge=0,
        lt=10**15,
        description="The last event that was seen, for clients that cannot send the header "
        "`Last-Event-ID`, which counts where both come.",
    )


class TaskRequest(Strict):
    """A task to be done."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "create_quote",
                    "payload": {"product": "isodec", "thickness_mm": 100},
                    "priority": "high",
                }
            ]
        }
    )

    type: Name = Field(description="What is asked; the agents declare their types.")
    payload: Document = Field(default_factory=dict, description="As the type declares it.")
    capabilities: list[Name] = Field(
        default_factory=list,
        max_length=20,
        description="What the agent must be able to do, beyond what the type needs.",
    )
    prefers: list[Name] = Field(
        default_factory=list,
        max_length=20,
        description="What the agent should be able to do besides; whoever is live goes before.",
    )
    priority: Literal["critical", "high", "normal", "low"] = "normal"
    strategy: StrategyName | None = Field(
        None, description="How the router chooses; the desk's own way where it is null."
    )
    deadline_s: float | None = Field(
        None,
        gt=0,
        le=30 * 86_400,
        allow_inf_nan=False,
        description="Cancelled when it is not done after this many seconds.",
    )


class Quote(BaseModel):
    """A price; amounts are numbers in the catalogue's currency."""

    model_config = ConfigDict(extra="allow")

    codigo: str
    producto: str
    descripcion: str
    total: float
    precio_m2: float | None = Field(description="Null where a quote has several items.")


# A number, or a string of its digits, which passes through no float.
Measure = Annotated[
    int | float | Annotated[str, Field(max_length=61, pattern=r"^-?[0-9]{1,30}(\.[0-9]{1,30})?$")],
    Field(description="A number, or a string of its digits."),
]
CatalogueName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class QuoteItemRequest(Strict):
    """One thing to be priced: both sides of a piece, or the area."""

    product: CatalogueName = Field(description="By id or any name of the catalogue.")
    thickness_mm: Measure
    length_m: Measure | None = None
    width_m: Measure | None = None
    area_m2: Measure | None = Field(None, description="In place of both sides.")
    quantity: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="How many of this size; 1 where it is null."
    )
    colour: CatalogueName | None = None
    finishes: Annotated[list[CatalogueName], Field(max_length=100)] | None = Field(
        None, description="A finish for each side that has one."
    )
    anchors: bool | None = Field(None, description="Included; the catalogue's way where null.")
    freight: bool | None = Field(None, description="Included; the catalogue's way where null.")


class QuoteCustomer(Strict):
    """Whose quote it is, as far as known."""

    name: Annotated[str, Field(max_length=200), AfterValidator(_printable)] | None = None
    phone: Phone | None = None


class QuoteRequest(Strict):
    """What is to be priced."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {"product": "isodec", "thickness_mm": 100, "length_m": 10, "width_m": 5},
                        {"product": "lana_roca", "thickness_mm": 50, "area_m2": "20"},
                    ],
                    "customer": {"name": "Ana", "phone": "+59899123456"},
                }
            ]
        }
    )

    items: Annotated[list[QuoteItemRequest], Field(min_length=1, max_length=60)]
    customer: QuoteCustomer | None = None
    language: Literal["es", "en"] = "es"
    session_id: SessionId | None = Field(
        None, description="The conversation that it belongs to, one of the caller's own."
    )
    supersedes: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)] | (
        None
    ) = Field(
        None,
        description="Id of the quote that this one corrects: it gets its number and the next "
        "version, and that one can no longer be accepted.",
    )

    def payload(self) -> Document:
        """What the quote agent is asked.

        Raises:
            Invalid: the phone is none.
        """
        wanted = self.model_dump(mode="json", exclude_none=True)
        if self.customer is not None and self.customer.phone:
            wanted["customer"]["phone"] = e164(self.customer.phone, "customer", "phone")
        return wanted


QuoteStateName = Literal["draft", "sent", "accepted", "rejected", "expired"]


class QuoteQuery(PageQuery):
    """Which quotes; filters may be combined."""

    state: QuoteStateName | None = Field(None, description="Only quotes in this state.")
    session_id: SessionId | None = Field(None, description="Only quotes of this conversation.")
    number: Annotated[str, Field(pattern=r"^[A-Z0-9-]{1,40}$")] | None = Field(
        None, description="Only the versions of this number."
    )
    since: Moment | None = Field(None, description="Made at this time or later.")


class QuoteItem(BaseModel):
    """A thing with its price; amounts and measures are strings of their digits."""

    model_config = ConfigDict(extra="allow")

    product: str
    description: str
    thickness_mm: int
    area_m2: str
    unit_price_per_m2: str
    total: str


class QuoteDetails(BaseModel):
    """A quote as it stands. Amounts are strings of their digits, in `currency`."""

    id: str
    code: str = Field(description="To say on the phone: the number, and the version from 2 on.")
    number: str
    version: int
    supersedes: str | None
    superseded_by: str | None = Field(description="The quote that corrects it, if any.")
    state: QuoteStateName
    session_id: str | None
    customer: Document
    language: Literal["es", "en"]
    product: str
    description: str
    items: list[QuoteItem]
    unit_price_per_m2: str | None = Field(description="Null where the items differ.")
    total: str
    tax: str = Field(description="The part of the total that is tax.")
    tax_rate: str
    currency: str
    catalogue_version: int
    created_at: dt.datetime
    valid_until: dt.datetime
    history: list[Document] = Field(description="When it became what.")
    pdf: str = Field(description="Where its PDF is.")


class Quotes(BaseModel):
    """A page of quotes, the newest first."""

    quotes: list[QuoteDetails]
    next_page_token: NextPageToken = None


class Business(BaseModel):
    """Whom the customers deal with."""

    name: str
    legal_name: str
    phone: str
    email: str
    website: str | None
    colour: str


class ChatReply(BaseModel):
    """The reply to a message, under the names of both dialects.

    With status 202 the reply is still to come: the text asks for patience, `task_id` says
    which task to read, and what only a reply has is null or empty. Messages that came close
    together have one reply: `turn_id` is then the same in the answers to all of them. While a
    person has the conversation (`owner` is `human`) the text is empty, `notice` says so, and
    what the person writes comes as a message of the session.
    """

    response: str
    mensaje: str
    session_id: str
    sesion_id: str
    intent: str | None
    tipo: Literal["cotizacion", "informacion", "pregunta", "seguimiento", "general"] | None
    confidence: float | None
    confianza: float | None
    needs: list[str]
    necesita_datos: list[str]
    actions: list[str]
    acciones: list[str]
    quote: Quote | None
    cotizacion: Quote | None
    answered_by: Literal["built_in", "language_model", "workflow"] | None = Field(
        description="Whether a language model was of use for this reply; `workflow`: a run has "
        "asked for this message, and answers it in the session."
    )
    owner: Literal["bot", "human"] = Field(description="Who answers in this conversation now.")
    notice: str | None = Field(description="Set while a person answers: not a reply to be shown.")
    aviso: str | None
    turn_id: str = Field(description="The turn that this reply is of; show each turn once.")
    timestamp: dt.datetime
    task_id: str


class Task(BaseModel):
    """A task as it stands."""

    id: str
    type: str
    state: Literal["blocked", "queued", "running", "waiting", "completed", "failed", "cancelled"]
    agent: str
    priority: Literal["critical", "high", "normal", "low"]
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    deadline: dt.datetime | None
    cancel_requested: bool
    attempts: int
    failures: int
    crashes: int
    parent_id: str | None
    children: list[str] = Field(description="The tasks that this one handed over last.")
    result: Any = None
    error: Document | None = Field(description="Of a failed or cancelled task: code and detail.")
    reply: ChatReply | None = Field(
        None, description="Of a chat message that was answered: what the chat route would say."
    )


class UnderWay(BaseModel):
    """What was accepted and is not done yet."""

    task_id: str
    state: State


class WebhookStored(BaseModel):
    """All of a batch is stored."""

    status: Literal["stored"]


class TaskQuery(PageQuery):
    """Which tasks; filters may be combined."""

    state: State | None = Field(None, description="Only tasks in this state.")
    agent: Name | None = Field(None, description="Only tasks of this agent, by its id.")
    type: Name | None = Field(None, description="Only tasks of this type.")
    session_id: SessionId | None = Field(None, description="Only tasks of this conversation.")
    since: Moment | None = Field(None, description="Accepted at this time or later.")

    def wanted(self) -> TaskFilter:
        """The filters as the store takes them."""
        return TaskFilter(
            state=self.state,
            agent=self.agent,
            type=self.type,
            session_id=self.session_id,
            since=self.since,
        )


class TaskSummary(BaseModel):
    """A task in a list: without what was asked and what came of it."""

    id: str
    type: str
    state: State
    agent: str
    priority: Literal["critical", "high", "normal", "low"]
    session_id: str | None
    parent_id: str | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    attempts: int
    failures: int
    crashes: int
    error_code: str | None


class Tasks(BaseModel):
    """A page of tasks, the newest first."""

    tasks: list[TaskSummary]
    next_page_token: NextPageToken = None


class DeadLetterQuery(PageQuery):
    """Which dead letters; filters may be combined."""

    type: Name | None = Field(None, description="Only tasks of this type.")
    agent: Name | None = Field(None, description="Only tasks of this agent, by its id.")
    code: Name | None = Field(None, description="Only those whose last error has this code.")
    since: Moment | None = Field(None, description="Accepted at this time or later.")

    def wanted(self) -> TaskFilter:
        """The filters as the store takes them."""
        return TaskFilter(type=self.type, agent=self.agent, code=self.code, since=self.since)


class DeadLetterFilter(Strict):
    """Which dead letters an act is for; filters may be combined, none means all of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"type": "create_quote", "code": "handler_error", "limit": 20}]
        }
    )

    type: Name | None = Field(None, description="Only tasks of this type.")
    agent: Name | None = Field(None, description="Only tasks of this agent, by its id.")
    code: Name | None = Field(None, description="Only those whose last error has this code.")
    since: Moment | None = Field(None, strict=False, description="Accepted at this time or later.")
    limit: int = Field(100, ge=1, le=500, description="At most so many of them.")

    def wanted(self) -> TaskFilter:
        """The filters as the store takes them."""
        return TaskFilter(type=self.type, agent=self.agent, code=self.code, since=self.since)


class DeadLetter(TaskSummary):
    """A task that came to nothing."""

    error: Document | None = Field(description="Its last error: code, detail, facts.")


class DeadLetters(BaseModel):
    """A page of dead letters, the newest first."""

    dead_letters: list[DeadLetter]
    next_page_token: NextPageToken = None


class OutboxQuery(PageQuery):
    """Which entries; filters may be combined."""

    state: EntryState | None = Field(None, description="Only entries in this state.")
    channel: Name | None = Field(None, description="Only those of this channel.")
    session_id: SessionId | None = Field(None, description="Only those of this conversation.")
    code: Name | None = Field(None, description="Only those with this reason.")
    since: Moment | None = Field(None, description="Committed at this time or later.")

    def wanted(self) -> OutboxFilter:
        """The filters as the store takes them."""
        return OutboxFilter(
            state=self.state,
            channel=self.channel,
            session_id=self.session_id,
            code=self.code,
            since=self.since,
        )


class OutboxDecision(Strict):
    """What a person decides about an entry that failed or is uncertain."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"decision": "send_again"}]})

    decision: Literal["send_again", "drop"] = Field(
        description="`send_again`: an uncertain message may then arrive twice. `drop`: it is "
        "given up."
    )


class OutboxDecisions(OutboxDecision):
    """A decision about all failed or uncertain entries that the filters find."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"decision": "send_again", "state": "failed", "code": "access_token_refused"}
            ]
        }
    )

    state: Literal["failed", "uncertain"] = Field(description="Only entries in this state.")
    channel: Name | None = Field(None, description="Only those of this channel.")
    code: Name | None = Field(None, description="Only those with this reason.")
    since: Moment | None = Field(None, strict=False, description="Committed at this time or later.")
    limit: int = Field(100, ge=1, le=500, description="At most so many of them.")

    def wanted(self) -> OutboxFilter:
        """The filters as the store takes them."""
        return OutboxFilter(
            state=EntryState(self.state), channel=self.channel, code=self.code, since=self.since
        )


class OutboxEntry(BaseModel):
    """Something that leaves, or has left: without what it says."""

    id: str
    task_id: str = Field(description="The task whose commit it belongs to.")
    session_id: str | None
    channel: str
    recipient: str
    author: Literal["bot", "person"]
    purpose: Literal["reply", "follow_up", "event"]
    state: EntryState
    reason: Document | None = Field(description="The last trouble: code, detail.")
    attempts: int
    reference: str | None = Field(description="What the recipient's side calls it.")
    receipt: str | None = Field(description="How far it came: sent, delivered, read, failed.")
    created_at: dt.datetime
    updated_at: dt.datetime
    sent_at: dt.datetime | None


class OutboxEntryInFull(OutboxEntry):
    """An entry with what it says."""

    body: Document
    receipts: dict[str, dt.datetime] = Field(description="When each receipt was given.")


class OutboxEntries(BaseModel):
    """A page of entries, the newest first."""

    entries: list[OutboxEntry]
    next_page_token: NextPageToken = None


class OutboxDecided(BaseModel):
    """What came of a decision about many entries."""

    done: int
    more: bool = Field(description="The limit was reached: ask again.")


class Attempt(BaseModel):
    """One run of a task."""

    attempt: int
    worker: str
    started_at: dt.datetime
    ended_at: dt.datetime | None
    outcome: str | None = Field(description="The event that ended it.")
    error: Document | None = Field(description="What went wrong: code, detail, facts.")


class DeadLetterInFull(DeadLetter):
    """A dead letter with all that happened to it."""

    attempts_made: list[Attempt] = Field(description="Those that the events still tell of.")
    children: list[str] = Field(description="The tasks that it handed over last.")
    events: list["TimelineEvent"] = Field(description="Oldest first; the newest 200 are kept.")


class Refusal(BaseModel):
    """A dead letter that was left as it is, and why."""

    id: str
    code: str


class DeadLettersDone(BaseModel):
    """What came of an act on many dead letters."""

    done: int
    refused: list[Refusal]
    more: bool = Field(description="The limit was reached: ask again.")


class CustomerPhone(Strict):
    """A customer, by its phone; in the body, since addresses of requests are logged."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"phone": "+59899123456"}]})

    phone: Phone = Field(
        min_length=1,
        description=f"In any usual way of writing; without a country code from {HOME_REGION}.",
    )


class CustomerData(BaseModel):
    """All that is kept of a customer; further members are collections."""

    model_config = ConfigDict(extra="allow")

    exported_at: dt.datetime
    phone: str
    contact: Document
    tasks: list[Document]


class Erasure(BaseModel):
    """An erasure as it stands."""

    id: str
    state: Literal["erasing", "done"]
    requested_at: dt.datetime
    done_at: dt.datetime | None
    counts: dict[str, int] = Field(description="What was erased or made anonymous so far.")


class CandidateScore(BaseModel):
    """An agent that could have done it; lower scores are better."""

    agent: str
    score: float


class Decision(BaseModel):
    """Which agent the router chose for a task, among whom, and why."""

    task_id: str
    agent: str
    strategy: str
    reason: str
    candidates: list[CandidateScore]
    waits_for_worker: bool = Field(description="No candidate had a live worker.")


class TimelineEvent(BaseModel):
    """Something that happened to a task; further members are its facts."""

    model_config = ConfigDict(extra="allow")

    at: dt.datetime
    event: str


class Timeline(BaseModel):
    """What happened to a task, oldest first; the newest 200 are kept."""

    task_id: str
    events: list[TimelineEvent]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["healthy"]


class Checks(BaseModel):
    """What a ready front door needs; `rescue_age_s` is how long ago tasks were looked after."""

    mongodb: bool
    redis: bool
    rescue: bool
    rescue_age_s: float | None


class Ready(BaseModel):
    """Messages are accepted, and what is accepted gets done."""

    status: Literal["ready"]
    checks: Checks | None = Field(None, description="With `?verbose`.")


AgentStatus = Literal["idle", "busy", "offline", "error"]


class Worker(BaseModel):
    """A live Celery process that serves an agent."""

    model_config = ConfigDict(extra="allow")

    worker: str
    status: AgentStatus
    slots: int
    current_tasks: int
    completed: int
    failed: int
    last_heartbeat: str | None
    version: str
    problem: str | None


class Agent(BaseModel):
    """A declared agent and its workers."""

    model_config = ConfigDict(extra="allow")

    agent_id: str
    name: str
    role: str
    capabilities: list[str]
    task_types: list[str]
    status: AgentStatus
    current_tasks: int
    max_concurrent_tasks: int = Field(description="Slots of all its live workers.")
    registered_at: str | None
    last_heartbeat: str | None
    metadata: Document
    workers: list[Worker]


class Agents(BaseModel):
    """Every declared agent."""

    agents: list[Agent]


class AgentHealth(BaseModel):
    """An agent's health, and what is wrong."""

    agent_id: str
    status: AgentStatus
    healthy: bool
    last_heartbeat: str | None
    current_tasks: int
    max_concurrent_tasks: int
    workers_online: int
    problems: list[str]


class Queue(BaseModel):
    """An agent's queue: what waits in it, and what its workers hold."""

    queue: str
    agent_id: str
    depth: int
    by_priority: dict[str, int]
    oldest_s: float | None = Field(description="How long the oldest has waited, in seconds.")
    oldest_s_by_priority: dict[str, float | None]
    held: int


class Queues(BaseModel):
    """All queues."""

    queue_size: int
    queues: list[Queue]


class MetricsTarget(BaseModel):
    """A worker's metrics, as Prometheus' `http_sd_configs` reads it."""

    targets: list[str] = Field(description="host:port, one.")
    labels: dict[str, str] = Field(description="The worker's name, and its agents.")


class MetricsTargets(RootModel[list[MetricsTarget]]):
    """Every live worker that serves metrics."""


class Status(BaseModel):
    """The whole desk."""

    model_config = ConfigDict(extra="allow")

    status: Literal["operational", "degraded", "down"]
    orchestrator: Document
    health: Document
    agents: list[Agent]
    workflows: dict[str, int] = Field(
        description="Runs that have not ended, by state; each counted to 10,000."
    )


class FieldProblem(BaseModel):
    """One field at fault, by JSON pointer, query parameter or header."""

    pointer: str | None = Field(None, description="RFC 6901 pointer into the body.")
    parameter: str | None = None
    header: str | None = None
    line: int | None = Field(None, description="Of a body in YAML.")
    detail: str
    allowed: list[Any] | None = Field(None, description="What is possible instead, where told.")


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is stable. Further members are facts about it."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldProblem] = Field(default_factory=list)


WorkflowId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
RunStateName = Literal["running", "paused", "compensating", "completed", "failed", "cancelled"]


class WorkflowStart(Strict):
    """What a run begins with."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": {"session_id": "juan", "items": []}}]}
    )

    input: Document = Field(default_factory=dict, description="As the workflow needs it.")
    version: int | None = Field(None, ge=1, le=10**9, description="Another than the newest.")


class WorkflowSummary(BaseModel):
    """A workflow in its newest version."""

    id: str
    version: int
    name: str
    description: str
    steps: int
    needs: list[str] = Field(description="What its input must have.")
    starts: list[Document] = Field(description="Events and schedules that start it.")


class WorkflowVersion(BaseModel):
    """One version of a definition."""

    version: int
    by: str
    created_at: dt.datetime


class WorkflowInFull(WorkflowSummary):
    """A workflow with its definition, and its versions, the newest first."""

    definition: Document
    versions: list[WorkflowVersion]


class Workflows(BaseModel):
    """Every workflow."""

    workflows: list[WorkflowSummary]


class WorkflowQuery(BaseModel):
    """Which version."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: int | None = Field(None, ge=1, le=10**9, description="Another than the newest.")


class RunQuery(PageQuery):
    """Which runs a list shows."""

    workflow: WorkflowId | None = Field(None, description="Of this workflow.")
    state: RunStateName | None = Field(None, description="In this state.")
    since: Moment | None = Field(None, description="Started since then.")


class WorkflowRun(BaseModel):
    """A run as it stands."""

    id: str
    workflow: str
    version: int
    state: RunStateName
    trigger: str = Field(description="What started it: api, cli, an event, schedule, workflow.")
    parent_id: str | None = Field(description="The run that it is a step of.")
    cancel_requested: bool
    error: Document | None
    output: Document | None
    created_at: dt.datetime
    finished_at: dt.datetime | None
    due_at: dt.datetime | None = Field(description="When it is looked at next, whatever comes.")


class RunCallback(BaseModel):
    """An event from outside that a run waits for."""

    name: str
    path: str = Field(description="Where it is to be posted, with its token.")


class RunStep(BaseModel):
    """One visit of a step."""

    key: str
    step: str
    kind: str
    state: Literal["active", "pausing", "completed", "failed", "cancelled"]
    visit: int
    tries: int
    way: str | None = Field(description="How it led on.")
    code: str | None = Field(description="Why it failed.")
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    due_at: dt.datetime | None
    task_id: str | None
    task_state: str | None
    attempts: int | None
    result: Any = None
    error: Document | None = None


class WorkflowRunInFull(WorkflowRun):
    """A run with its input, every visit of its steps, and what it waits for."""

    input: Document
    steps: list[RunStep]
    callbacks: list[RunCallback]


class WorkflowRuns(BaseModel):
    """A page of runs, the newest first."""

    runs: list[WorkflowRun]
    next_page_token: NextPageToken = None


class CallbackQuery(BaseModel):
    """The permission to answer."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: str | None = Field(
        None, min_length=1, max_length=300, description="As in the URL; the operator needs none."
    )


class CallbackTaken(BaseModel):
    """The event counts."""

    run_id: str
    callback: str


SessionOwner = Literal["bot", "human"]
SessionStatus = Literal["open", "closed"]
OnBusyName = Literal["coalesce", "enqueue", "reject"]
PersonName = Annotated[
    str,
    Field(min_length=1, max_length=60, description="Who the person is, for colleagues."),
    AfterValidator(_plain),
]


class SessionQuery(PageQuery):
    """Which conversations; filters may be combined."""

    owner: SessionOwner | None = Field(None, description="Only those that this one answers.")
    status: SessionStatus | None = Field(None, description="Only those that are open, or closed.")
    channel: Name | None = Field(None, description="Only those of this channel.")
    waiting: Literal["true"] | None = Field(
        None,
        description="Only those whose customer waits for a person, the longest wait first; not "
        "combined with other filters but `owner=human`, and on one page.",
    )


class SessionState(BaseModel):
    """A conversation as it stands."""

    session_id: str
    channel: str
    phone: str | None
    name: str | None = Field(description="The customer's, where it was told.")
    language: str | None
    status: SessionStatus
    owner: SessionOwner = Field(description="Who answers: the bot, or a person.")
    taken_by: str | None = Field(description="The person who has it; null while one is waited for.")
    waiting_since: dt.datetime | None = Field(
        description="Since when the customer waits for a person, else null."
    )
    on_busy: OnBusyName = Field(
        description="Messages that come while another is answered: understood together, one by "
        "one, or refused."
    )
    version: int = Field(description="Of the context; rises with every change.")
    created_at: dt.datetime
    updated_at: dt.datetime


class SessionList(BaseModel):
    """A page of conversations, the newest first."""

    sessions: list[SessionState]
    next_page_token: NextPageToken = None


class MessageQuery(PageQuery):
    """Which messages of a conversation."""

    after: int = Field(
        0, ge=0, lt=2**31, description="Only messages with higher numbers, on the first page."
    )


class SessionMessage(BaseModel):
    """Something that was said."""

    n: int = Field(description="Its number in the conversation, from 1, without gaps.")
    role: Literal["customer", "assistant", "person"]
    text: str
    at: dt.datetime
    task_id: str | None = Field(description="The task that brought it, or that answered with it.")
    by: str | None = Field(None, description="The person who said it.")
    medium: str | None = Field(None, description="What a customer sent that is not words.")
    intent: str | None = None
    tipo: str | None = None
    actions: list[str] = Field(default_factory=list, description="Suggested answers.")
    quote: Quote | None = None


class SessionMessages(BaseModel):
    """A page of what was said, in order."""

    session_id: str
    messages: list[SessionMessage]
    next_page_token: NextPageToken = None


class ContextQuery(BaseModel):
    """Which version."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: int | None = Field(
        None, ge=0, lt=2**53, description="An older one, while it is kept; else the present one."
    )


class SessionContext(BaseModel):
    """What the agents keep of a conversation: a part that all see, and each one's own."""

    session_id: str
    version: int
    at: dt.datetime = Field(description="When this version came to be.")
    current_version: int
    shared: Document
    agents: dict[str, Document]


class SessionChange(Strict):
    """What an operator sets."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"on_busy": "enqueue"}, {"status": "closed"}]}
    )

    status: Literal["closed"] | None = Field(
        None, description="Ends it: its phone's next message begins a new conversation."
    )
    on_busy: OnBusyName | None = Field(
        None, description="What becomes of messages that come while another is answered."
    )


class TakeOver(Strict):
    """Who takes a conversation."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "Ana"}]})

    by: PersonName = "operator"


class PersonReply(Strict):
    """What a person says to the customer."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "Hola, soy Ana. Ya lo veo.", "by": "Ana"}]}
    )

    text: Text
    by: PersonName = "operator"


class ConversationQuery(PageQuery):
    """Which conversations."""

    page_size: int = Field(20, ge=1, le=50, description="At most so many of them.")


class ConversationMessage(BaseModel):
    """A message as existing clients read it."""

    role: Literal["user", "assistant"]
    content: str
    timestamp: dt.datetime


class Conversation(BaseModel):
    """A conversation as existing clients read it, with its newest messages."""

    sessionId: str
    phone: str | None
    messages: list[ConversationMessage]
    createdAt: dt.datetime


class Conversations(RootModel[list[Conversation]]):
    """Conversations, the newest first; `Link` leads to the next page."""
