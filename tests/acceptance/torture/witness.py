"""How a handler tells the oracle what it does."""

import http.client
import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

ORACLE_VARIABLE = "TORTURE_ORACLE"
PATIENCE_S = 30.0


def began(key: str, **facts: Any) -> None:
    """A run of this job's handler begins here."""
    _tell("/began", key, facts | {"pid": os.getpid()})


def effect(key: str, **payload: Any) -> None:
    """The effect of this job takes place. A second one is the oracle's to remember."""
    _tell("/effect", key, payload)


def _tell(path: str, key: str, facts: dict[str, Any]) -> None:
    body = json.dumps({"key": key, "facts": facts})
    deadline = time.monotonic() + PATIENCE_S
    while True:
        oracle = urlsplit(os.environ[ORACLE_VARIABLE])
        connection = http.client.HTTPConnection(oracle.hostname or "", oracle.port, timeout=10)
        try:
            connection.request("POST", path, body)
            connection.getresponse().read()
            return
        except OSError:
            # It is never a subject of the faults: a busy machine may still be late.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        finally:
            connection.close()
