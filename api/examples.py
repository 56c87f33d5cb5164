"""Examples in the API's description: one customer, Juan, and what is seen of him everywhere.

By the name of the schema that they are examples of. A test holds each against its schema.
"""

import re
from collections.abc import Mapping
from typing import Any

from api import followup_schemas, report_schemas, sync_schemas
from api.errors import (
    HTTP_CODES,
    PROBLEM_TYPE,
    UNREADABLE,
    AlreadyDecided,
    ChatUnstaffed,
    Erased,
    FollowupGone,
    FollowupNotFound,
    FollowupsUnstaffed,
    Forbidden,
    Malformed,
    NotReady,
    QuoteClosed,
    QuoteNotFound,
    QuotePending,
    QuoteRefused,
    QuotesUnstaffed,
    ReportPending,
    ReportsUnstaffed,
    RequestInFlight,
    SyncsUnstaffed,
    TaskCancelled,
    TaskFailed,
    TooManyStreams,
    Unauthenticated,
    WrongContentType,
)
from api.whatsapp import ChannelOff, NotAllStored
from orchestrator.definition_store import WorkflowNotFound
from orchestrator.definitions import DefinitionInvalid, Fault
from orchestrator.errors import (
    AgentNotFound,
    AlreadyInEffect,
    Conflict,
    IdempotencyKeyReused,
    Invalid,
    InvalidPayload,
    KeyBusy,
    NoCapableAgent,
    NotADeadLetter,
    NotFound,
    OrchestratorError,
    Overloaded,
    SessionClosed,
    SessionNotTaken,
    SessionTaken,
    StoreUnavailable,
    TaskIsFinal,
    TaskNotFound,
    TooManyWaiting,
)
from orchestrator.workflows import CallbackRefused, CallbackUsed, RunNotFound

Document = dict[str, Any]

TASK_ID = "019ab7c5e41200006f8a7c1d23b94e50"
QUOTE_ID = "019ab7c5e51900015b1e9d402c77aa31"
RUN_ID = "019ab7c61f0300022f64b80de1a95c7e"
ENTRY_ID = "019ab7c5e8aa0003c3d1f7a05e6b9248"
ERASURE_ID = "019ab7c9d77b0004a9e2c4518f30bd6a"
SESSION_ID = "5f2c8a41d0b94e6f8a7c1d23"
PHONE = "+59899123456"
SAID = "2026-11-24T19:05:11.120000+00:00"
BEGUN = "2026-11-24T19:05:11.131000+00:00"
ANSWERED = "2026-11-24T19:05:11.318000+00:00"
VALID = "2026-12-04T19:05:11.250000+00:00"
# Of parameters of paths and queries, where the name alone tells too little.
PARAMETERS: Document = {
    "task_id": TASK_ID,
    "quote_id": QUOTE_ID,
    "run_id": RUN_ID,
    "entry_id": ENTRY_ID,
    "erasure_id": ERASURE_ID,
    "session_id": SESSION_ID,
    "report_id": report_schemas.REPORT_ID,
    "watch": "answer_p50",
    "subscription_id": report_schemas.SUBSCRIPTION_ID,
    "followup_id": followup_schemas.FOLLOWUP_ID,
    "sync": "prices",
    "version_number": "11",
    "conflict_id": sync_schemas.CONFLICT_ID,
    "import_id": sync_schemas.IMPORT_ID,
    "rule": "quote_unanswered",
    "workflow_id": "after_a_quote",
    "agent_id": "quote_agent",
    "name": "approved",
    "agent": "quote_agent",
    "type": "create_quote",
    "number": "COT-2026-000123",
    "since": "2026-11-24T00:00:00Z",
    "wait": 2.5,
    "Idempotency-Key": '"order-1187"',
    "Last-Event-ID": "21",
}

_TEXT = (
    "Tu cotización COT-2026-000123: Isodec 100 mm, 10 × 5 m, blanco. Total: $ 7.500,00, IVA "
    "incluido ($ 1.352,46). Son $ 150,00 por m²."
)
_QUOTE: Document = {
    "id": QUOTE_ID,
    "codigo": "COT-2026-000123",
    "producto": "isodec",
    "descripcion": "Isodec 100 mm, 10 × 5 m, blanco",
    "total": 7500.0,
    "precio_m2": 150.0,
    "pdf": f"/api/quotes/{QUOTE_ID}.pdf",
}
_REPLY: Document = {
    "response": _TEXT,
    "mensaje": _TEXT,
    "session_id": SESSION_ID,
    "sesion_id": SESSION_ID,
    "intent": "quote_request",
    "tipo": "cotizacion",
    "confidence": 0.98,
    "confianza": 0.98,
    "needs": [],
    "necesita_datos": [],
    "actions": ["Acepto", "En gris"],
    "acciones": ["Acepto", "En gris"],
    "quote": _QUOTE,
    "cotizacion": _QUOTE,
    "answered_by": "built_in",
    "owner": "bot",
    "notice": None,
    "aviso": None,
    "turn_id": TASK_ID,
    "timestamp": ANSWERED,
    "task_id": TASK_ID,
}
_QUOTE_DETAILS: Document = {
    "id": QUOTE_ID,
    "code": "COT-2026-000123",
    "number": "COT-2026-000123",
    "version": 1,
    "supersedes": None,
    "superseded_by": None,
    "state": "sent",
    "session_id": SESSION_ID,
    "customer": {"name": "Juan", "phone": PHONE},
    "language": "es",
    "product": "isodec",
    "description": "Isodec 100 mm, 10 × 5 m, blanco",
    "items": [
        {
            "product": "isodec",
            "description": "Isodec 100 mm, 10 × 5 m, blanco",
            "thickness_mm": 100,
            "area_m2": "50",
            "unit_price_per_m2": "150",
            "total": "7500.00",
        }
    ],
    "unit_price_per_m2": "150",
    "total": "7500.00",
    "tax": "1352.46",
    "tax_rate": "0.22",
    "currency": "UYU",
    "catalogue_version": 3,
    "created_at": ANSWERED,
    "valid_until": VALID,
    "history": [{"state": "draft", "at": ANSWERED}, {"state": "sent", "at": ANSWERED}],
    "pdf": f"/api/quotes/{QUOTE_ID}.pdf",
}
_TASK: Document = {
    "id": TASK_ID,
    "type": "create_quote",
    "state": "completed",
    "agent": "quote_agent",
    "priority": "normal",
    "created_at": SAID,
    "started_at": BEGUN,
    "finished_at": ANSWERED,
    "deadline": None,
    "cancel_requested": False,
    "attempts": 1,
    "failures": 0,
    "crashes": 0,
    "parent_id": None,
    "children": [],
    "result": {"id": QUOTE_ID, "code": "COT-2026-000123", "total": "7500.00"},
    "error": None,
    "reply": None,
}
_SUMMARY: Document = {
    "id": TASK_ID,
    "type": "create_quote",
    "state": "completed",
    "agent": "quote_agent",
    "priority": "normal",
    "session_id": SESSION_ID,
    "parent_id": None,
    "created_at": SAID,
    "started_at": BEGUN,
    "finished_at": ANSWERED,
    "attempts": 1,
    "failures": 0,
    "crashes": 0,
    "error_code": None,
}
_ERROR = {"code": "handler_error", "detail": "The handler raised ConnectionError.", "facts": {}}
_LETTER: Document = _SUMMARY | {
    "type": "import_catalogue",
    "agent": "data_sync_agent",
    "session_id": None,
    "state": "failed",
    "attempts": 4,
    "failures": 4,
    "error_code": "handler_error",
    "error": _ERROR,
}
_ENTRY: Document = {
    "id": ENTRY_ID,
    "task_id": TASK_ID,
    "session_id": SESSION_ID,
    "channel": "whatsapp",
    "recipient": PHONE,
    "author": "bot",
    "purpose": "reply",
    "state": "uncertain",
    "reason": {"code": "no_answer", "detail": "The connection ended before the answer."},
    "attempts": 1,
    "reference": None,
    "receipt": None,
    "created_at": ANSWERED,
    "updated_at": ANSWERED,
    "sent_at": None,
}
_SESSION: Document = {
    "session_id": SESSION_ID,
    "channel": "whatsapp",
    "phone": PHONE,
    "name": "Juan",
    "language": "es",
    "status": "open",
    "owner": "human",
    "taken_by": None,
    "waiting_since": SAID,
    "on_busy": "coalesce",
    "version": 7,
    "created_at": SAID,
    "updated_at": ANSWERED,
}
_CONVERSATION: Document = {
    "sessionId": SESSION_ID,
    "phone": PHONE,
    "messages": [
        {"role": "user", "content": "Isodec de 100 para 10x5", "timestamp": SAID},
        {"role": "assistant", "content": _TEXT, "timestamp": ANSWERED},
    ],
    "createdAt": SAID,
}
_WORKER: Document = {
    "worker": "quote@desk-1",
    "status": "idle",
    "slots": 5,
    "current_tasks": 0,
    "completed": 1804,
    "failed": 2,
    "last_heartbeat": ANSWERED,
    "version": "0.1.0",
    "problem": None,
}
_AGENT: Document = {
    "agent_id": "quote_agent",
    "name": "Quote agent",
    "role": "quote",
    "capabilities": ["price_calculation", "product_knowledge", "quote_generation"],
    "task_types": ["accept_quote", "create_quote", "reject_quote", "render_quote"],
    "status": "idle",
    "current_tasks": 0,
    "max_concurrent_tasks": 5,
    "slots_per_worker": 5,
    "registered_at": SAID,
    "last_heartbeat": ANSWERED,
    "metadata": {},
    "workers": [_WORKER],
}
_WORKFLOW: Document = {
    "id": "after_a_quote",
    "version": 2,
    "name": "After a quote",
    "description": "Asks a day later whether there are questions.",
    "steps": 2,
    "needs": ["session_id"],
    "starts": [],
}
DEFINITION: Document = {
    "id": "after_a_quote",
    "name": "After a quote",
    "description": "Reports an hour later how the desk is.",
    "steps": [
        {"id": "later", "delay": {"for": "1h"}},
        {"id": "report", "task": "housekeeping_report"},
    ],
}
_RUN: Document = {
    "id": RUN_ID,
    "workflow": "after_a_quote",
    "version": 2,
    "state": "running",
    "trigger": "api",
    "parent_id": None,
    "cancel_requested": False,
    "error": None,
    "output": None,
    "created_at": SAID,
    "finished_at": None,
    "due_at": VALID,
}
_NEXT = "WyI5ZjJiIiwiMDE5YWI3YzUiXQ"

EXAMPLES: Mapping[str, Any] = {
    "Alive": {"status": "healthy"},
    "Ready": {"status": "ready", "checks": None},
    "ChatReply": _REPLY,
    "Task": _TASK,
    "Tasks": {"tasks": [_SUMMARY], "next_page_token": _NEXT},
    "Decision": {
        "task_id": TASK_ID,
        "agent": "quote_agent",
        "strategy": "balanced",
        "reason": "quote_agent has the shortest expected wait",
        "candidates": [{"agent": "quote_agent", "score": 0.04}],
        "waits_for_worker": False,
    },
    "Timeline": {
        "task_id": TASK_ID,
        "events": [
            {"at": SAID, "event": "accepted"},
            {"at": BEGUN, "event": "claimed", "worker": "quote@desk-1"},
            {"at": ANSWERED, "event": "completed"},
        ],
    },
    "UnderWay": {"task_id": TASK_ID, "state": "queued"},
    "QuoteDetails": _QUOTE_DETAILS,
    "Quotes": {"quotes": [_QUOTE_DETAILS]},
    "Business": {
        "name": "Panels and More",
        "legal_name": "Panels and More S.A.",
        "phone": "+59824001234",
        "email": "ventas@example.com",
        "website": "https://example.com",
        "colour": "#0b5394",
    },
    "DeadLetters": {"dead_letters": [_LETTER]},
    "DeadLetterInFull": _LETTER
    | {
        "attempts_made": [
            {
                "attempt": 4,
                "worker": "data_sync@desk-1",
                "started_at": BEGUN,
                "ended_at": ANSWERED,
                "outcome": "failed",
                "error": _ERROR,
            }
        ],
        "children": [],
        "events": [{"at": SAID, "event": "accepted"}, {"at": ANSWERED, "event": "failed"}],
    },
    "DeadLettersDone": {
        "done": 19,
        "refused": [{"id": TASK_ID, "code": "already_in_effect"}],
        "more": False,
    },
    "OutboxEntries": {"entries": [_ENTRY]},
    "OutboxEntry": _ENTRY | {"state": "pending", "reason": None},
    "OutboxEntryInFull": _ENTRY | {"body": {"text": _TEXT}, "receipts": {"sent": ANSWERED}},
    "OutboxDecided": {"done": 12, "more": False},
    "CustomerData": {
        "exported_at": ANSWERED,
        "phone": PHONE,
        "contact": {"last_heard": {"whatsapp": SAID}},
        "tasks": [{"_id": TASK_ID, "type": "process_message", "state": "completed"}],
        "sessions": [{"_id": SESSION_ID, "phone": PHONE}],
    },
    "Erasure": {
        "id": ERASURE_ID,
        "state": "erasing",
        "requested_at": ANSWERED,
        "done_at": None,
        "counts": {"sessions": 1, "tasks": 4},
    },
    "Status": {
        "status": "operational",
        "orchestrator": {"status": "idle", "rescuer": "working", "rescue_age_s": 0.4},
        "health": {
            "agents": {"total": 6, "online": 6, "offline": 0},
            "tasks": {
                "total": 1830,
                "pending": 2,
                "running": 1,
                "completed": 1825,
                "failed": 2,
                "cancelled": 0,
            },
            "queue_size": 2,
        },
        "agents": [_AGENT],
        "workflows": {"running": 3, "paused": 0, "compensating": 0},
    },
    "Agents": {"agents": [_AGENT]},
    "Agent": _AGENT,
    "AgentHealth": {
        "agent_id": "quote_agent",
        "status": "idle",
        "healthy": True,
        "last_heartbeat": ANSWERED,
        "current_tasks": 0,
        "max_concurrent_tasks": 5,
        "workers_online": 1,
        "problems": [],
    },
    "Queues": {
        "queue_size": 2,
        "queues": [
            {
                "queue": "quote",
                "agent_id": "quote_agent",
                "depth": 2,
                "by_priority": {"critical": 0, "high": 0, "normal": 2, "low": 0},
                "oldest_s": 0.214,
                "oldest_s_by_priority": {
                    "critical": None,
                    "high": None,
                    "normal": 0.214,
                    "low": None,
                },
                "held": 5,
            }
        ],
    },
    "MetricsTargets": [
        {
            "targets": ["desk-1:9101"],
            "labels": {"worker": "quote@desk-1", "agents": "quote_agent"},
        }
    ],
    "Workflows": {"workflows": [_WORKFLOW]},
    "WorkflowSummary": _WORKFLOW,
    "WorkflowInFull": _WORKFLOW
    | {
        "definition": DEFINITION,
        "versions": [{"version": 2, "by": "operator", "created_at": SAID}],
    },
    "WorkflowRuns": {"runs": [_RUN]},
    "WorkflowRun": _RUN,
    "WorkflowRunInFull": _RUN
    | {
        "input": {"session_id": SESSION_ID},
        "steps": [
            {
                "key": "later.1",
                "step": "later",
                "kind": "delay",
                "state": "active",
                "visit": 1,
                "tries": 0,
                "way": None,
                "code": None,
                "started_at": SAID,
                "finished_at": None,
                "due_at": VALID,
                "task_id": None,
                "task_state": None,
                "attempts": None,
                "result": None,
                "error": None,
            }
        ],
        "callbacks": [],
    },
    "CallbackTaken": {"run_id": RUN_ID, "callback": "approved"},
    "SessionState": _SESSION,
    "SessionList": {"sessions": [_SESSION], "next_page_token": _NEXT},
    "SessionMessages": {
        "session_id": SESSION_ID,
        "messages": [
            {
                "n": 1,
                "role": "customer",
                "text": "Isodec de 100 para 10x5",
                "at": SAID,
                "task_id": TASK_ID,
            },
            {
                "n": 2,
                "role": "assistant",
                "text": _TEXT,
                "at": ANSWERED,
                "task_id": TASK_ID,
                "intent": "quote_request",
                "tipo": "cotizacion",
                "actions": ["Acepto", "En gris"],
                "quote": _QUOTE,
            },
        ],
    },
    "SessionContext": {
        "session_id": SESSION_ID,
        "version": 7,
        "at": ANSWERED,
        "current_version": 7,
        "shared": {"name": "Juan", "language": "es"},
        "agents": {"conversation_agent": {"greeted": True}},
    },
    "Conversation": _CONVERSATION,
    "Conversations": [_CONVERSATION],
    "WebhookStored": {"status": "stored"},
    **report_schemas.EXAMPLES,
    **followup_schemas.EXAMPLES,
    **sync_schemas.EXAMPLES,
}
# What Meta sends for a customer's message.
WEBHOOK: Document = {
    "object": "whatsapp_business_account",
    "entry": [
        {
            "id": "102290129340398",
            "changes": [
                {
                    "field": "messages",
                    "value": {
                        "messaging_product": "whatsapp",
                        "metadata": {"phone_number_id": "106540352242922"},
                        "messages": [
                            {
                                "from": PHONE.lstrip("+"),
                                "id": "wamid.HBgLNTk4OTkxMjM0NTYVAgASGBQzQTdB",
                                "timestamp": "1795547111",
                                "type": "text",
                                "text": {"body": "Isodec de 100 para 10x5"},
                            }
                        ],
                    },
                }
            ],
        }
    ],
}

# What is not JSON, by its media type.
TEXTS: Mapping[str, str] = {
    "text/event-stream": (
        'retry: 2000\n\nid: 10\nevent: RUN_STARTED\ndata: {"type": "RUN_STARTED", '
        f'"threadId": "{SESSION_ID}", "runId": "{TASK_ID}"}}\n\n: heartbeat\n\n'
    ),
    "text/plain": "# TYPE orchestrator_streams_open gauge\norchestrator_streams_open 12.0\n",
    "text/html": '<!doctype html>\n<html lang="es"><head><title>Informe…</title></head></html>\n',
    "text/csv": "date,measure,dimension,part,unit,value\n,messages,,,count,1220\n",
    "text/vnd.mermaid": "flowchart TD\n  later --> report\n",
}


# Errors that are not of our tree.
OF_THE_SERVER = {
    413: (HTTP_CODES[413], "Request Entity Too Large"),
    414: (UNREADABLE, "Request-URI Too Long"),
}
_FIELD = {"pointer": "/message", "detail": "must not be empty"}
_PARAMETER = {"parameter": "page_token", "detail": "is not a token of this list"}
_ALLOWED = {
    "pointer": "/items/0/thickness_mm",
    "detail": "is not made; there are: 50, 75, 100",
    "allowed": [50, 75, 100],
}
_IN_FLIGHT = RequestInFlight(task_id=TASK_ID, location=f"/api/tasks/{TASK_ID}")
# The errors that each status stands for: the first pattern that fits a route counts.
PROBLEMS: list[tuple[str, dict[int, list[OrchestratorError]]]] = [
    (
        "post /(chat/process|api/chat)",
        {
            409: [_IN_FLIGHT, KeyBusy()],
            422: [Invalid(errors=[_FIELD]), IdempotencyKeyReused()],
            500: [TaskFailed(task_id=TASK_ID), TaskCancelled()],
            503: [
                StoreUnavailable(),
                Overloaded(retry_after_s=7),
                ChatUnstaffed(),
            ],
        },
    ),
    (
        "post /api/tasks$",
        {
            409: [_IN_FLIGHT],
            422: [
                InvalidPayload(errors=[_FIELD | {"pointer": "/payload/items"}]),
                NoCapableAgent(capabilities=["alchemy"]),
                IdempotencyKeyReused(),
            ],
            503: [StoreUnavailable(), Overloaded(retry_after_s=7)],
        },
    ),
    (
        ".* /api/tasks/.*/events",
        {
            404: [TaskNotFound()],
            503: [TooManyStreams(), StoreUnavailable()],
        },
    ),
    (
        ".* /api/tasks",
        {
            404: [TaskNotFound()],
            409: [TaskIsFinal()],
        },
    ),
    (
        ".* /api/dead-letters",
        {
            404: [TaskNotFound()],
            409: [NotADeadLetter(), AlreadyInEffect()],
        },
    ),
    (
        "post /api/quotes$",
        {
            422: [QuoteRefused(errors=[_ALLOWED]), Invalid(errors=[_FIELD])],
            503: [StoreUnavailable(), QuotesUnstaffed()],
        },
    ),
    ("get /api/quotes$", {404: [NotFound("No such session")]}),
    (
        "get /api/quotes/{quote_id}.pdf",
        {
            404: [QuoteNotFound()],
            500: [TaskFailed(task_id=TASK_ID)],
            503: [QuotePending(), StoreUnavailable()],
        },
    ),
    (
        ".* /api/followups",
        {
            404: [FollowupNotFound()],
            409: [FollowupGone(standing="sent")],
            422: [Invalid(errors=[{"pointer": "/session_id", "detail": "is no conversation"}])],
            503: [StoreUnavailable(), FollowupsUnstaffed()],
        },
    ),
    (
        ".* /api/(syncs|catalogue)",
        {
            404: [NotFound("No such sync")],
            409: [AlreadyDecided()],
            503: [StoreUnavailable(), SyncsUnstaffed()],
        },
    ),
    ("post /api/reports", {503: [StoreUnavailable(), ReportsUnstaffed()]}),
    (
        ".* /api/reports",
        {404: [NotFound("No such report")], 503: [ReportPending(), StoreUnavailable()]},
    ),
    (
        ".* /api/quotes",
        {
            404: [QuoteNotFound()],
            409: [QuoteClosed(standing="accepted")],
        },
    ),
    (
        ".* /api/sessions/.*/events",
        {
            404: [NotFound("No such session")],
            503: [TooManyStreams(), StoreUnavailable()],
        },
    ),
    (
        ".* /(api/sessions|conversations)",
        {
            404: [NotFound("No such session")],
            409: [
                SessionTaken(taken_by="Ana"),
                SessionNotTaken(),
                SessionClosed(),
            ],
        },
    ),
    (
        ".* /api/workflows/runs/.*/events",
        {
            404: [RunNotFound()],
            503: [TooManyStreams(), StoreUnavailable()],
        },
    ),
    (".* /api/workflows/runs/.*/callbacks", {404: [CallbackRefused()], 409: [CallbackUsed()]}),
    (".* /api/workflows/runs", {404: [RunNotFound()]}),
    (
        "put /api/workflows",
        {
            422: [DefinitionInvalid("body", [Fault("/steps/0/task", 4, "is no task type")])],
        },
    ),
    (".* /api/workflows", {404: [WorkflowNotFound()]}),
    (".* /api/orchestrator/agents", {404: [AgentNotFound()]}),
    (".* /api/whatsapp", {404: [ChannelOff()], 503: [NotAllStored(missing=1)]}),
    (".* /readyz", {503: [NotReady(), StoreUnavailable()]}),
]
GENERAL: dict[int, list[OrchestratorError]] = {
    400: [Malformed()],
    401: [Unauthenticated()],
    403: [Forbidden()],
    404: [NotFound()],
    409: [Conflict()],
    410: [Erased(task_id=TASK_ID)],
    415: [WrongContentType()],
    422: [Invalid(errors=[_FIELD])],
    429: [TooManyWaiting()],
    500: [TaskFailed(task_id=TASK_ID)],
    503: [StoreUnavailable()],
}


def problems(method: str, path: str, status: int, with_body: bool) -> list[Document]:
    """Problem documents that a route may answer with a status, the likeliest first."""
    if status in OF_THE_SERVER:
        code, title = OF_THE_SERVER[status]
        return [_problem(status, code, title, path)]
    found = GENERAL[status]
    if status == 422 and not with_body:
        found = [Invalid(errors=[_PARAMETER])]
    for pattern, known in PROBLEMS:
        if re.match(pattern, f"{method} {path}"):
            found = known.get(status, found)
            break
    return [_problem(status, each.code, each.title, path, **each.facts) for each in found]


def _problem(status: int, code: str, title: str, path: str, **facts: Any) -> Document:
    """A problem document as the caller of `path`, whose parameters are filled in, sees it."""
    for name, value in PARAMETERS.items():
        path = path.replace(f"{{{name}}}", str(value))
    return {
        "type": PROBLEM_TYPE + code,
        "title": title,
        "status": status,
        "detail": title,
        "instance": path,
        "code": code,
        "request_id": "7f1c1f0b6e8f4d0c9a55a2d8b1c0e3f4",
        **facts,
    }
