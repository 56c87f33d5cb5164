"""How soon WhatsApp's webhook is answered: signature, batch, an insert per message, 200.

Beside it, on the same connection and in turn, a request that stores nothing: what is left is
what a message costs. No worker runs: who answers messages is another matter.
"""

import hmac
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.crowd import front_door
from deploy.servers import LOOPBACK
from orchestrator.declarations import discover
from orchestrator.engine import Engine
from orchestrator.settings import Settings

SECRET, NUMBER_ID = "the secret of a benchmark", "106540352242922"
SETTINGS: Final = {
    "WHATSAPP_APP_SECRET": SECRET,
    "WHATSAPP_VERIFY_TOKEN": "the token of a benchmark",
    "WHATSAPP_ACCESS_TOKEN": "another token of a benchmark",
    "WHATSAPP_PHONE_NUMBER_ID": NUMBER_ID,
    # Nobody works on what comes in, and it would be turned away for the wait.
    "MAX_EXPECTED_WAIT_S": "86400",
}
BATCH: Final = 10
GIVE_UP_S: Final = 30.0
WARM_UP: Final = 20


@dataclass(frozen=True)
class Answered:
    """Milliseconds from a request's first byte to its whole answer."""

    what: str
    requests: int
    p50: float
    p99: float
    worst: float


def webhook(requests: int, redis_url: str, mongodb_uri: str, log_file: Path) -> list[Answered]:
    """Each kind of request in turn, on one connection.

    Raises:
        RuntimeError: an answer was no 200, or not all messages were stored.
    """
    settings = Settings(redis_url=redis_url, mongodb_uri=mongodb_uri)
    engine = Engine(settings)
    engine.init(discover("agents").values())
    times: dict[str, list[float]] = {}
    with front_door(settings, log_file, **SETTINGS) as (port, _):
        line = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
        kinds: dict[str, Callable[[int], None]] = {
            "livez, which stores nothing": lambda _: _ask(line, "GET", "/livez"),
            "a message": lambda n: _deliver(line, "one", n, 1),
            f"a batch of {BATCH}": lambda n: _deliver(line, "ten", n, BATCH),
        }
        for n in range(WARM_UP + requests):
            for what, ask in kinds.items():
                began = time.perf_counter()
                ask(n)
                if n >= WARM_UP:
                    times.setdefault(what, []).append((time.perf_counter() - began) * 1e3)
        line.close()
    stored = engine.database["tasks"].count_documents({"caller": "whatsapp"})
    engine.close()
    if stored != (WARM_UP + requests) * (1 + BATCH):
        raise RuntimeError(f"{stored} messages were stored")
    return [_answered(what, sorted(each)) for what, each in times.items()]


def _answered(what: str, times: list[float]) -> Answered:
    return Answered(
        what, len(times), times[len(times) // 2], times[int(len(times) * 0.99)], times[-1]
    )


def _deliver(line: http.client.HTTPConnection, name: str, turn: int, count: int) -> None:
    """Messages of as many customers, in one batch, signed. None writes again for some turns: of
    one customer only so many messages may wait."""
    messages = [
        {
            "from": f"5989{turn % 50 * BATCH + n:07}",
            "id": f"wamid.{name}.{turn}.{n}",
            "timestamp": str(int(time.time())),
            "type": "text",
            "text": {"body": "Hola, cuánto sale el isodec de 100 para 10 x 5?"},
        }
        for n in range(count)
    ]
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "59825001234", "phone_number_id": NUMBER_ID},
        "contacts": [],
        "messages": messages,
    }
    change = {"field": "messages", "value": value}
    told = {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}
    _ask(line, "POST", "/api/whatsapp/webhook", told)


def _ask(line: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> None:
    raw = b"" if body is None else json.dumps(body).encode()
    signature = hmac.digest(SECRET.encode(), raw, "sha256").hex()
    headers = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={signature}"}
    until = time.monotonic() + GIVE_UP_S
    while True:
        line.request(method, path, raw or None, headers if raw else {})
        answer = line.getresponse()
        told = answer.read()
        if answer.status == 200:
            return
        # Meta repeats what was not taken, and so do we: it counts in the time.
        if answer.status != 503 or time.monotonic() > until:
            raise RuntimeError(f"{path}: {answer.status} {told[:300]!r}")
