"""The front door as gunicorn serves it: streams, stops, and requests that nobody should send."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import doors
import pytest
import requests
from conftest import Desk
from pydantic import BaseModel

from deploy.servers import MongoServer, RedisServer
from orchestrator import Agent, TaskContext

PROJECT = Path(__file__).resolve().parents[2]
Eventually = Callable[..., Any]

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]


class FrontDoor(doors.FrontDoor):
    """One that customers talk to, and whose process is looked into."""

    def say(self, text: str, session: str, wait: float = 20) -> requests.Response:
        body = {"message": text, "session_id": session}
        return requests.post(f"{self.url}/api/chat", params={"wait": wait}, json=body, timeout=40)

    def threads(self) -> int:
        """Of the process that serves; the other one is gunicorn's arbiter."""
        pid = self.process.pid
        [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return len(os.listdir(f"/proc/{child}/task"))


class Stream:
    """An event stream as a browser reads it."""

    def __init__(self, url: str, last: int | None = None) -> None:
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        self.response = requests.get(url, headers=headers, stream=True, timeout=30)
        self.lines = self.response.iter_lines(decode_unicode=True)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        event: dict[str, Any] = {}
        for line in self.lines:
            if line.startswith(":"):
                yield {"comment": line[1:].strip()}
            elif not line and event:
                yield event
                event = {}
            elif line:
                name, _, value = line.partition(": ")
                event[name] = json.loads(value) if name == "data" else value

    def rest(self) -> list[dict[str, Any]]:
        """All numbered events to the end."""
        with self:
            return [event for event in self if "id" in event]

    def named(self, *names: str) -> dict[str, Any]:
        """The next event of one of these names."""
        return next(event for event in self if event.get("event") in names)


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory,
    servers: tuple[RedisServer, MongoServer],
    eventually: Eventually,
) -> Iterator[Desk]:
    """The shipped agents, two of them at work, for all tests here."""
    desk = Desk(tmp_path_factory.mktemp("desk"), *servers, eventually)
    desk.environment["AGENTS_PACKAGE"] = "agents"
    desk.engine.init([])
    desk.worker("conversation", package="agents")
    desk.worker("quote", package="agents")
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def front_door(desk: Desk) -> FrontDoor:
    webhook = {"WHATSAPP_APP_SECRET": "secret", "WHATSAPP_VERIFY_TOKEN": "token"}
    return FrontDoor(desk, STREAM_HEARTBEAT_S="0.5", MAX_STREAMS="3", CLIENT_KEYS="", **webhook)


# -- streams ---------------------------------------------------------------------------


def test_a_task_is_told_to_its_end_and_from_wherever_a_client_left(front_door: FrontDoor) -> None:
    answer = front_door.say("Isodec 100 mm, 10 x 5 m, white", "stream-1").json()
    url = f"{front_door.url}/api/tasks/{answer['task_id']}/events"
    whole = Stream(url).rest()
    assert [whole[0]["event"], whole[-1]["event"]] == ["RUN_STARTED", "RUN_FINISHED"]
    ids = [int(event["id"]) for event in whole]
    assert ids == sorted(set(ids))
    said = next(e for e in whole if e["event"] == "TEXT_MESSAGE_CONTENT")
    assert said["data"]["delta"] == answer["response"]
    front_door.desk.engine.redis.flushall()
    for n in range(len(whole) - 1):
        assert Stream(url, ids[n]).rest() == whole[n + 1 :]
    # EventSource comes back after every end; this tells it to stay away.
    assert requests.get(url, headers={"Last-Event-ID": str(ids[-1])}, timeout=9).status_code == 204


def test_a_watched_session_hears_messages_and_its_state(front_door: FrontDoor) -> None:
    front_door.say("hello", "stream-2")
    url = f"{front_door.url}/api/sessions/stream-2/events"
    with Stream(url, last=0) as stream, ThreadPoolExecutor(1) as pool:
        assert stream.response.headers["Content-Type"].startswith("text/event-stream")
        state = stream.named("STATE_DELTA")
        assert {d["path"]: d["value"] for d in state["data"]["delta"]}["/owner"] == "bot"
        answer = pool.submit(front_door.say, "What is isodec?", "stream-2")
        texts = []
        while len(texts) < 4:
            texts.append(stream.named("TEXT_MESSAGE_CONTENT")["data"]["delta"])
    assert texts[0] == "hello"
    assert texts[2:] == ["What is isodec?", answer.result().json()["response"]]


def test_a_quiet_stream_shows_signs_of_life(front_door: FrontDoor) -> None:
    front_door.say("hello", "stream-3")
    with Stream(f"{front_door.url}/api/sessions/stream-3/events") as stream:
        assert {"comment": "heartbeat"} in (event for event in stream)


def test_streams_past_the_cap_are_refused_and_a_client_that_is_gone_frees_its_place(
    front_door: FrontDoor, eventually: Eventually
) -> None:
    front_door.say("hello", "stream-4")
    url = f"{front_door.url}/api/sessions/stream-4/events"
    eventually(lambda: not refused(url), 10, "no stream of another test is open")
    streams = [Stream(url) for _ in range(2)]
    # One that says what it wants and never reads, nor closes.
    deaf = socket.create_connection(("127.0.0.1", front_door.port))
    deaf.sendall(b"GET /api/sessions/stream-4/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    eventually(lambda: refused(url), 10, "three are open")
    answer = requests.get(url, timeout=9)
    assert (answer.status_code, answer.json()["code"]) == (503, "too_many_streams")
    assert int(answer.headers["Retry-After"]) > 0
    assert requests.get(f"{front_door.url}/livez", timeout=9).ok
    deaf.close()
    eventually(lambda: not refused(url), 10, "the place of the one that is gone is free")
    for stream in streams:
        stream.response.close()


def refused(url: str) -> bool:
    with requests.get(url, stream=True, timeout=9) as answer:
        return answer.status_code == 503


def test_nobody_watches_what_is_not_there_or_not_theirs(front_door: FrontDoor) -> None:
    for path in ("/api/tasks/none/events", "/api/sessions/none/events"):
        answer = requests.get(front_door.url + path, timeout=9)
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
    bad = {"Last-Event-ID": "x; drop"}
    answer = requests.get(f"{front_door.url}/api/tasks/none/events", headers=bad, timeout=9)
    assert (answer.status_code, answer.json()["errors"][0]["header"]) == (400, "Last-Event-ID")


# -- what nobody should send -----------------------------------------------------------


def json_request(body: bytes, kind: bytes = b"application/json", more: bytes = b"") -> bytes:
    return (
        b"POST /api/chat?wait=0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        + b"Content-Type: %s\r\n%sContent-Length: %d\r\n\r\n" % (kind, more, len(body))
        + body
    )


def get_request(path: bytes, method: bytes = b"GET") -> bytes:
    return b"%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % (method, path)


def message(**fields: Any) -> bytes:
    return json_request(json.dumps(fields).encode())


HEAD = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
# What is sent; status, code, and the field that the answer names.
BAD: dict[str, tuple[bytes, int, str, str]] = {
    "no HTTP at all": (b"\x00\x01\x02\r\n\r\n", 400, "unreadable_request", ""),
    "no such version": (b"GET / HTTP/9.9\r\n\r\n", 400, "unreadable_request", ""),
    "header with a space": (
        b"GET / HTTP/1.1\r\nA B: 1\r\n\r\n", 400, "unreadable_request", "",
    ),
    "too many headers": (
        b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 300 + b"\r\n", 431, "unreadable_request", "",
    ),
    "two lengths": (
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "unreadable_request", "",
    ),
    "unknown coding": (
        HEAD + b"Transfer-Encoding: odd\r\n\r\n", 400, "unreadable_request", "",
    ),
    "broken chunks": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n", 400, "malformed_request", "",
    ),
    "broken chunks from nobody": (
        b"POST /api/whatsapp/webhook HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n", 400, "malformed_request", "",
    ),
    "no method of ours": (get_request(b"/api/chat", b"BREW"), 405, "method_not_allowed", ""),
    "wrong method": (get_request(b"/api/chat", b"DELETE"), 405, "method_not_allowed", ""),
    "an id with NUL": (get_request(b"/api/tasks/a%00b"), 404, "task_not_found", ""),
    "an id with slashes": (get_request(b"/api/tasks/a%2F..%2Fb"), 404, "not_found", ""),
    "an id that is no text": (get_request(b"/api/tasks/%ff%fe"), 404, "task_not_found", ""),
    "an id in Chinese": (get_request(b"/api/tasks/%E4%BD%A0"), 404, "task_not_found", ""),
    "an id like a query": (get_request(b"/api/tasks/$ne"), 404, "task_not_found", ""),
    "an id of 3 kB": (get_request(b"/api/tasks/" + b"x" * 3000), 404, "task_not_found", ""),
    "an id of 10 kB": (get_request(b"/api/tasks/" + b"x" * 10_000), 414, "unreadable_request", ""),
    "a session's id with NUL": (get_request(b"/api/sessions/%00/events"), 404, "not_found", ""),
    "an agent's id that is no text": (
        get_request(b"/api/orchestrator/agents/%ff"), 404, "agent_not_found", "",
    ),
    "an endless wait": (get_request(b"/api/tasks/x?wait=1e999"), 422, "invalid_request", "wait"),
    "two waits": (get_request(b"/api/tasks/x?wait=1&wait=2"), 422, "invalid_request", "wait"),
    "unknown in a query": (get_request(b"/api/tasks/x?much=1"), 422, "invalid_request", "much"),
    "broken JSON": (json_request(b'{"message": "hola'), 400, "malformed_request", ""),
    "a line break in a text": (json_request(b'{"message": "a\nb"}'), 400, "malformed_request", ""),
    "no object": (json_request(b"[1]"), 422, "invalid_request", ""),
    "nothing": (json_request(b""), 400, "malformed_request", ""),
    "a number as text": (message(message=1), 422, "invalid_request", "/message"),
    "a list as phone": (message(message="a", phone=[]), 422, "invalid_request", "/phone"),
    "unknown name": (message(message="a", mesage="b"), 422, "invalid_request", "/mesage"),
    "more than 10 kB": (message(message="a" * 10_001), 422, "invalid_request", "/message"),
    "more than 64 kB": (message(message="a" * 66_000), 413, "body_too_large", ""),
    "a control character": (message(message="a\0b"), 422, "invalid_request", "/message"),
    "one in a session": (
        message(message="a", session_id="\7"), 422, "invalid_request", "/session_id",
    ),
    "Latin-1": (json_request(b'{"message": "\xf1"}'), 400, "malformed_request", ""),
    "another charset": (
        json_request(b"{}", b"application/json; charset=utf-16"),
        415, "unsupported_content_type", "",
    ),
    "a form": (
        json_request(b"message=a", b"application/x-www-form-urlencoded"),
        415, "unsupported_content_type", "",
    ),
    "compressed": (
        json_request(b"{}", more=b"Content-Encoding: gzip\r\n"),
        415, "unsupported_content_type", "",
    ),
    "deep nesting": (
        json_request(b"[" * 9000 + b"]" * 9000), 400, "malformed_request", "",
    ),
    "a number of 5,000 digits": (
        json_request(b'{"message":' + b"9" * 5000 + b"}"), 400, "malformed_request", "",
    ),
    "a number beyond measure": (
        json_request(b'{"message": 1e999}'), 400, "malformed_request", "/message",
    ),
    "a repeated name": (
        json_request(b'{"message": "a", "message": "b"}'), 400, "malformed_request", "",
    ),
    "half a character": (
        json_request(b'{"message": "\\ud800"}'), 400, "malformed_request", "/message",
    ),
    "a key that is no key": (
        json_request(b'{"message": "a"}', more=b"Idempotency-Key: \xff\r\n"),
        400, "malformed_request", "Idempotency-Key",
    ),
}  # fmt: skip


def test_a_body_that_ends_early_is_a_400(front_door: FrontDoor) -> None:
    with socket.create_connection(("127.0.0.1", front_door.port), timeout=20) as line:
        line.sendall(HEAD + b"Content-Length: 50\r\nConnection: close\r\n\r\n{}")
        line.shutdown(socket.SHUT_WR)
        assert read_all(line).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("what", BAD)
def test_what_nobody_should_send_is_a_problem_document_and_nothing_is_stored(
    front_door: FrontDoor, what: str
) -> None:
    sent, status, code, field = BAD[what]
    database = front_door.desk.engine.database
    before = {
        name: database[name].count_documents({}) for name in ("tasks", "sessions", "messages")
    }
    with socket.create_connection(("127.0.0.1", front_door.port), timeout=20) as line:
        line.sendall(sent)
        head, _, body = read_all(line).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"application/problem+json" in head
    document = json.loads(body)
    assert (document["status"], document["code"]) == (status, code)
    assert document["request_id"]
    named = {value for error in document.get("errors", []) for value in error.values()}
    assert not field or field in named
    assert {name: database[name].count_documents({}) for name in before} == before


def read_all(line: socket.socket) -> bytes:
    """Until the server closes, which may be with a reset: we have sent more than it read."""
    answer = b""
    try:
        while chunk := line.recv(65_536):
            answer += chunk
    except ConnectionResetError:
        assert answer
    return answer


def test_who_sends_too_slowly_is_not_listened_to_for_ever(desk: Desk) -> None:
    door = FrontDoor(desk, REQUEST_TIMEOUT_S="1")
    head = b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    body = json.dumps({"message": "hola", "session_id": "slow"}).encode()
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body)
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n"
    stored = desk.engine.database["tasks"].count_documents({})
    for sent in (b"GET /li", head, whole, whole + body[:-1], chunked, chunked + b"{"):
        with socket.create_connection(("127.0.0.1", door.port), timeout=10) as line:
            line.sendall(sent)
            answer = read_all(line)
        # Where the head was whole, there is somebody to answer.
        assert answer.startswith(b"HTTP/1.1 400") == (b"\r\n\r\n" in sent), answer
    assert desk.engine.database["tasks"].count_documents({}) == stored
    # Who is only waiting for the answer is not slow.
    waiting = undone(door, desk, 1)[0].replace("wait=5", "wait=3")
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as line:
        path = waiting.removeprefix(door.url)
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert line.recv(12) == b"HTTP/1.1 200"
    assert time.monotonic() - began > 2.5
    assert '"event": "http.too_slow"' in desk.log(door.log)
    door.process.terminate()


# -- waits and stops -------------------------------------------------------------------


def test_past_the_room_for_waits_a_message_is_accepted_and_not_waited_for(desk: Desk) -> None:
    door = FrontDoor(desk, MAX_WAITS="2")
    with ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(requests.get, url, timeout=40) for url in undone(door, desk, 2)]
        desk.eventually(lambda: door.say("hello", "room").status_code == 202, 15, "no room")
        assert requests.get(f"{door.url}/livez", timeout=9).ok
        assert [wait.result().status_code for wait in waits] == [200, 200]
    door.process.terminate()


def undone(door: FrontDoor, desk: Desk, count: int) -> list[str]:
    """Addresses of requests that wait for tasks whose agent has no worker."""
    absent = Agent(role="absent", name="Absent", capabilities=["absence"], slots=1)
    absent.handles("wait_for_nobody", needs=["absence"])(nobody)
    desk.engine.init([absent])
    tasks = [desk.submit("wait_for_nobody", {}, caller="local") for _ in range(count)]
    return [f"{door.url}/api/tasks/{task.id}?wait=5" for task in tasks]


class Nothing(BaseModel):
    """A payload without fields."""


def nobody(context: TaskContext, nothing: Nothing) -> None:
    raise AssertionError("nobody runs it")


def test_a_stop_answers_who_waits_and_ends_streams(desk: Desk) -> None:
    door = FrontDoor(desk, "--graceful-timeout", "3")
    door.say("hello", "stop-1")
    stream = Stream(f"{door.url}/api/sessions/stop-1/events")
    stream.named("STATE_DELTA")
    answers: list[requests.Response] = []
    os.kill(desk.processes[0].pid, signal.SIGSTOP)  # the conversation worker
    try:
        asked = threading.Thread(target=lambda: answers.append(door.say("hello", "stop-2", 30)))
        asked.start()
        sessions = desk.engine.database["tasks"]
        desk.eventually(
            lambda: sessions.count_documents({"key": "session:stop-2"}), 10, "it is accepted"
        )
        began = time.monotonic()
        door.process.terminate()
        asked.join(20)
        assert door.process.wait(20) == 0
        assert time.monotonic() - began < 20
    finally:
        os.kill(desk.processes[0].pid, signal.SIGCONT)
    assert answers[0].status_code == 202
    location = answers[0].headers["Location"]
    again = FrontDoor(desk)
    # It was accepted, so it is done.
    task = requests.get(f"{again.url}{location}?wait=20", timeout=40).json()
    assert task["state"] == "completed"
    with stream:
        # What was said, and then no end event: its client comes back and goes on.
        assert [event["id"] for event in stream if "id" in event] == [
            "10", "11", "12", "20", "21", "22",
        ]  # fmt: skip
    again.process.terminate()


def test_a_reload_answers_who_waits_and_goes_on_serving(desk: Desk) -> None:
    door = FrontDoor(desk, "--graceful-timeout", "3")
    tasks = desk.engine.database["tasks"]
    os.kill(desk.processes[0].pid, signal.SIGSTOP)  # the conversation worker
    try:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(door.say, "hello", "reload", 30)
            desk.eventually(
                lambda: tasks.count_documents({"key": "session:reload"}), 10, "it is accepted"
            )
            began = time.monotonic()
            door.process.send_signal(signal.SIGHUP)
            assert answer.result(25).status_code == 202
            assert time.monotonic() - began < 20
    finally:
        os.kill(desk.processes[0].pid, signal.SIGCONT)
    # The next process of the same gunicorn has it done.
    task = requests.get(f"{door.url}{answer.result().headers['Location']}?wait=20", timeout=40)
    assert task.json()["state"] == "completed"
    assert door.say("hello", "reloaded").status_code == 200
    door.process.terminate()
