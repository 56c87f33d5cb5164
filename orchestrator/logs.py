"""How this project logs: one JSON line per event on stderr, constant event names, facts.

Never a customer's text, a phone number or a token: callers pass ids and numbers only. A
session's id may be a client's choice, even a phone number: it is logged as a keyed hash. An
exception is logged as its type and where it came from; its message may quote a customer.
"""

import hashlib
import hmac
import logging
import secrets
import sys
import traceback
from types import TracebackType

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from orchestrator.settings import Settings

log: structlog.stdlib.BoundLogger = structlog.get_logger("orchestrator")

FRAMES_SHOWN = 5
# A process that was told none joins its own lines only.
_key = secrets.token_bytes(32)


def configure(settings: Settings, level: str | None = None) -> None:
    """Send structlog and the standard library's logging through one renderer."""
    global _key
    if settings.log_key is not None:
        _key = settings.log_key.get_secret_value().encode()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _exceptions_without_messages,
                structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel((level or settings.log_level).upper())
    # Celery's lines per task repeat ours, at a cost per task, and with a stack trace.
    logging.getLogger("celery.app.trace").setLevel(logging.CRITICAL)
    for name in ("celery.worker.strategy", "kombu", "pymongo"):
        logging.getLogger(name).setLevel(logging.WARNING)


def pseudonym(name: str) -> str:
    """What stands for a name in the logs: equal for equal names where `LOG_KEY` is the same."""
    return hmac.new(_key, name.encode(), hashlib.sha256).hexdigest()[:16]


def about(**facts: object) -> None:
    """Add facts to every further line of this thread, until `about_nothing`."""
    structlog.contextvars.bind_contextvars(**facts)


def about_nothing() -> None:
    """Forget what `about` was told: this thread begins something else."""
    structlog.contextvars.clear_contextvars()


def where(trace: TracebackType | None) -> list[str]:
    """The last frames of a traceback, without any values."""
    frames = traceback.extract_tb(trace)[-FRAMES_SHOWN:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def _exceptions_without_messages(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    if isinstance(raised, BaseException):
        raised = (type(raised), raised, raised.__traceback__)
    if isinstance(raised, tuple) and raised[0] is not None:
        event["error"] = raised[0].__name__
        event["where"] = where(raised[2])
    event.pop("stack_info", None)
    return event
