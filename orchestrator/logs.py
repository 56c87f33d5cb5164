"""How this project logs: one JSON line per event on stderr, constant event names, facts.

Never a customer's text, a phone number or a token: callers pass ids and numbers only.
"""

import logging
import sys

import structlog

log: structlog.stdlib.BoundLogger = structlog.get_logger("orchestrator")


def configure(level: str) -> None:
    """Send structlog and the standard library's logging through one renderer."""
    shared: list[structlog.typing.Processor] = [
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
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Celery's lines per task repeat ours, at a cost per task, and with a stack trace.
    logging.getLogger("celery.app.trace").setLevel(logging.CRITICAL)
    for name in ("celery.worker.strategy", "kombu", "pymongo"):
        logging.getLogger(name).setLevel(logging.WARNING)
