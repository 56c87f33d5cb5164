"""Nothing of a customer, and no token, in a log or in Redis: every desk of these tests is held
against that when it closes.

What must not be there is read from MongoDB, which has all of it, so that no test needs to know.
Redis is listened to for as long as the desk is open (`MONITOR` shows each command with its
arguments, also of what is gone a moment later) and read whole at the end.
"""

import base64
import json
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from pymongo.database import Database

COLLECTIONS = (
    "tasks",
    "sessions",
    "messages",
    "contexts",
    "quotes",
    "outbox",
    "responses",
    "contacts",
    "followups",
    "runs",
)
# What a customer says and is told, by the names under which it is stored.
TEXTS = {"message", "text", "body", "response", "mensaje", "question"}
PHONES = {"phone", "telefono", "recipient", "to"}
NAMES = {"name"}
# Where a name is a customer's.
WITH_NAMES = ("sessions", "contexts", "quotes")
TOKENS = re.compile(r"TOKEN|SECRET|KEYS?$|PASSWORD")
# Shorter texts ("hola") are also words of ours, and shorter names parts of words.
MIN_TEXT, MIN_NAME = 12, 5
BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")


class Ear:
    """Hears every command that a Redis is given, also after it was started again."""

    def __init__(self, url: str) -> None:
        server = redis.connection.parse_url(url)
        self._address = (server["host"], server["port"])
        self._heard: list[bytes] = []
        self._closed = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        assert self._listening.wait(10), "Redis does not let itself be monitored"

    def heard(self) -> str:
        """What was heard so far, as it was before Redis escaped it."""
        return unescaped(b"".join(self._heard))

    def close(self) -> str:
        """Stop; returns what was heard."""
        self._closed.set()
        self._thread.join(5)
        return self.heard()

    def _listen(self) -> None:
        while not self._closed.is_set():
            with suppress(OSError), socket.create_connection(self._address, timeout=1) as line:
                line.sendall(b"MONITOR\r\n")
                line.settimeout(0.2)
                while not self._closed.is_set():
                    try:
                        got = line.recv(1 << 16)
                    except TimeoutError:
                        continue
                    if not got:
                        break
                    self._listening.set()
                    self._heard.append(got)
            self._closed.wait(0.05)


def unescaped(heard: bytes) -> str:
    """`MONITOR`'s lines without its escapes: \\" and \\xc3\\xb1."""
    return heard.decode("unicode_escape", "replace").encode("latin-1", "replace").decode(
        "utf-8", "replace"
    )  # fmt: skip


def everything_in(client: "redis.Redis[str]") -> str:
    """All keys and values of a Redis."""
    readers = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": client.xrange,
    }
    found = []
    for key in client.scan_iter("*", count=1000):
        kind = client.type(key)
        # It may go in between.
        found.append(f"{key} {readers[kind](key) if kind in readers else ''}")
    return "\n".join(found)


def logs_in(directory: Path) -> str:
    """What all logs of a directory say."""
    return "\n".join(file.read_text(errors="replace") for file in directory.rglob("*.log*"))


def secrets_of(database: Database[Any], environment: Mapping[str, str]) -> dict[str, str]:
    """What must be nowhere else: the secret, and what it is."""
    found: dict[str, str] = {}
    for collection in COLLECTIONS:
        for document in database[collection].find():
            for name, value in _strings(document):
                found |= _secrets(name, value, f"{collection}.{name}")
    for name, value in environment.items():
        if TOKENS.search(name):
            for part in value.split(","):
                token = part.rpartition(":")[2] if name == "CLIENT_KEYS" else part
                if len(token) >= 12:
                    found[token] = name
    return found


def leaks(where: Mapping[str, str], secrets: Mapping[str, str]) -> list[str]:
    """Which secrets are where; each is named, and shown, since they are of tests."""
    found = []
    for place, text in where.items():
        seen = text + "\n" + "\n".join(_decoded(text))
        for secret, what in secrets.items():
            variants = {secret, json.dumps(secret)[1:-1]}
            if any(_holds(seen, each, what) for each in variants):
                found.append(f"{place} holds {what}: {secret!r}")
    return found


def _holds(text: str, secret: str, what: str) -> bool:
    if secret not in text:
        return False
    # A name may be part of a word, a phone part of a number.
    bounded = what.rpartition(".")[2] in NAMES | PHONES
    return not bounded or bool(re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text))


def _decoded(text: str) -> Iterator[str]:
    """What stands in base64: Celery's messages do."""
    for run in set(BASE64.findall(text)):
        with suppress(ValueError):
            yield base64.b64decode(run, validate=True).decode("utf-8", "replace")


def _secrets(name: str, value: str, what: str) -> Iterable[tuple[str, str]]:
    value = value.strip()
    if name in PHONES and len(digits := re.sub(r"\D", "", value)) >= 8:
        # However it is written: with its country's code, with a 0, without either.
        return [(value, what), (digits, what), (digits[-8:], what), ("0" + digits[-8:], what)]
    a_name = name in NAMES and what.startswith(WITH_NAMES) and len(value) >= MIN_NAME
    if a_name or (name in TEXTS and len(value) >= MIN_TEXT):
        return [(value, what)]
    return []


def _strings(document: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(document, str):
        yield name, document
    elif isinstance(document, Mapping):
        for key, value in document.items():
            yield from _strings(value, str(key))
    elif isinstance(document, list | tuple):
        for each in document:
            yield from _strings(each, name)
