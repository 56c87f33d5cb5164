"""The one tree of errors: stable codes with facts.

Only `api/errors.py` knows which HTTP status a code becomes. Messages name facts about
the request, never a customer's text.
"""

from typing import Any, ClassVar

from pydantic_core import ErrorDetails


class OrchestratorError(Exception):
    """Root of everything this project raises on purpose.

    `code` is stable and part of the API; `facts` are JSON-able values that explain it.
    """

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, detail: str | None = None, **facts: Any) -> None:
        self.detail = detail or self.title
        self.facts = facts
        super().__init__(self.detail)

    def __str__(self) -> str:
        known = ", ".join(f"{name}={value!r}" for name, value in self.facts.items())
        return f"{self.code}: {self.detail}" + (f" ({known})" if known else "")


class BadSettings(OrchestratorError):
    """A setting has a value that cannot work; raised once, at the start of a process."""

    code = "bad_settings"
    title = "A setting has a bad value"


class Invalid(OrchestratorError):
    """What was asked cannot be accepted as it stands; nothing was stored."""

    code = "invalid_request"
    title = "The request is not valid"


class InvalidPayload(Invalid):
    """A task's payload does not fit what its type declares.

    Facts: `errors`, a list of `{"pointer": JSON pointer, "detail": reason}`.
    """

    code = "invalid_payload"
    title = "The payload does not fit the task type"


class NoCapableAgent(Invalid):
    """No declared agent handles the task type with all capabilities asked for."""

    code = "no_capable_agent"
    title = "No declared agent can do this"


class IdempotencyKeyReused(Invalid):
    """The key came before with another body."""

    code = "idempotency_key_reused"
    title = "This Idempotency-Key was used with another request"


class TooManyWaiting(OrchestratorError):
    """The ordering key has as many unfinished tasks as it may have. Nothing was stored."""

    code = "too_many_waiting"
    title = "Too many messages of this conversation are waiting"


class Overloaded(OrchestratorError):
    """There is more to do than can be done in time. Nothing was stored.

    Facts: `retry_after_s`, whole seconds; and what is over its limit.
    """

    code = "overloaded"
    title = "There is too much to do just now"


class NotFound(OrchestratorError):
    """Nothing of that name, or nothing that this caller may see."""

    code = "not_found"
    title = "Not found"


class TaskNotFound(NotFound):
    """No such task."""

    code = "task_not_found"
    title = "No such task"


class AgentNotFound(NotFound):
    """No agent of that id is declared."""

    code = "agent_not_found"
    title = "No such agent"


class Conflict(OrchestratorError):
    """The thing has moved on since it was read."""

    code = "conflict"
    title = "This has changed meanwhile"


class TaskIsFinal(Conflict):
    """The task has ended; it can no longer be cancelled."""

    code = "task_is_final"
    title = "The task has already ended"


class NotADeadLetter(Conflict):
    """The task is no dead letter, or is none any more: it did not fail, or was replayed."""

    code = "not_a_dead_letter"
    title = "This task is not a dead letter"


class AlreadyInEffect(Conflict):
    """What the task does has taken effect, or that cannot be ruled out: it must not run again."""

    code = "already_in_effect"
    title = "This has taken effect already"


class StaleAttempt(Conflict):
    """The attempt was given up for dead; its result must be dropped."""

    code = "stale_attempt"
    title = "This attempt no longer holds the task"


class StaleContext(Conflict):
    """A write read an older version of the session; the handler boundary runs again."""

    code = "stale_context"
    title = "The session changed while it was worked on"


class KeyBusy(Conflict):
    """Another task of the ordering key is under way, and this one was to be alone. Nothing was
    stored."""

    code = "busy"
    title = "The message before this one is not answered yet"


class SessionTaken(Conflict):
    """Another person has the session. Facts: `taken_by`."""

    code = "session_taken"
    title = "Another person has this conversation"


class SessionNotTaken(Conflict):
    """A person replies in a session that the bot has."""

    code = "session_not_taken"
    title = "Take the conversation before you reply"


class SessionClosed(Conflict):
    """The session has ended."""

    code = "session_closed"
    title = "The conversation is closed"


class Unavailable(OrchestratorError):
    """A dependency cannot be reached. The outcome is unknown: retry with the same key."""

    code = "unavailable"
    title = "A dependency is unavailable"


class StoreUnavailable(Unavailable):
    """MongoDB did not answer in time."""

    code = "store_unavailable"
    title = "The task store is unavailable"


class BrokerUnavailable(Unavailable):
    """Redis did not answer in time."""

    code = "broker_unavailable"
    title = "The broker is unavailable"


class RetryLater(OrchestratorError):
    """Raised by a handler whose turn has not come yet: it runs again, and no failure is counted.

    `after_s` is when, where the other side said so; else the pauses grow as after failures.
    """

    code = "retry_later"
    title = "Not now: it is tried again later"

    def __init__(
        self, detail: str | None = None, *, after_s: float | None = None, **facts: Any
    ) -> None:
        super().__init__(detail, **facts)
        self.after_s = after_s


class TaskError(OrchestratorError):
    """Raised by a handler that knows its task cannot succeed: failed at once, no retry.

    The code and facts become the task's error, and a parent's value.
    """

    code = "task_error"
    title = "The task cannot be done"

    def __init__(self, code: str, detail: str | None = None, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.task_code = code


def said_of(problem: ErrorDetails) -> str:
    """What a validator found, without pydantic's "Value error, " before our own words."""
    return problem["msg"].removeprefix("Value error, ")
