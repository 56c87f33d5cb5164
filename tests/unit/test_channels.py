"""What others' answers mean, who may be asked, and how a long text is cut."""

import datetime as dt
import ipaddress
import json
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.channels import webhook_outcome, whatsapp_outcome
from agents.outside import AllowList, Answer
from orchestrator.outbox import NotNow, Refused, Sent, Unknown, parts


def graph(status: int, body: object, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, headers, content)


def error(code: int) -> dict[str, object]:
    return {"error": {"code": code, "type": "OAuthException", "message": "about +59899123456"}}


def test_a_message_that_was_taken_is_known_by_its_id():
    taken = graph(200, {"messaging_product": "whatsapp", "messages": [{"id": "wamid.1"}]})
    assert whatsapp_outcome(taken) == Sent("wamid.1")


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (graph(200, b"<html>"), Unknown, "unreadable_answer"),
        (graph(200, {"messages": []}), Unknown, "unreadable_answer"),
        (graph(200, []), Unknown, "unreadable_answer"),
        (graph(429, error(130429)), NotNow, "whatsapp_130429"),
        (graph(429, b""), NotNow, "whatsapp_429"),
        (graph(400, error(131056)), NotNow, "whatsapp_131056"),
        (graph(500, error(131000)), NotNow, "whatsapp_131000"),
        (graph(500, b""), NotNow, "whatsapp_500"),
        (graph(503, b""), NotNow, "whatsapp_503"),
        (graph(502, b"<html>"), Unknown, "gateway"),
        (graph(504, b""), Unknown, "gateway"),
        (graph(401, error(190)), Refused, "access_token_refused"),
        (graph(400, error(190)), Refused, "access_token_refused"),
        (graph(400, error(131047)), Refused, "outside_window"),
        (graph(400, error(131026)), Refused, "whatsapp_131026"),
        (graph(403, error(10)), Refused, "whatsapp_10"),
        (graph(404, b""), Refused, "whatsapp_404"),
        (graph(302, b""), Refused, "whatsapp_302"),
        (graph(400, {"error": "odd"}), Refused, "whatsapp_400"),
    ],
)
def test_an_answer_of_whatsapp_means(answer, kind, code):
    outcome = whatsapp_outcome(answer)
    assert (type(outcome), outcome.code) == (kind, code)
    assert "59899123456" not in outcome.detail


def test_retry_after_is_heeded_in_measure():
    limited = graph(429, error(130429), **{"retry-after": "7"})
    assert whatsapp_outcome(limited).after_s == 7.0
    for absurd, after_s in (("-1", None), ("soon", None), ("999999", 3600.0), ("nan", None)):
        assert whatsapp_outcome(graph(429, b"", **{"retry-after": absurd})).after_s == after_s


def test_retry_after_may_be_a_date():
    def after_s(at: dt.datetime) -> float | None:
        return graph(503, b"", **{"retry-after": format_datetime(at, usegmt=True)}).retry_after_s

    now = dt.datetime.now(dt.UTC)
    assert 50 < (after_s(now + dt.timedelta(minutes=1)) or 0) <= 60
    assert after_s(now - dt.timedelta(minutes=1)) == 0


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Sent()),
        (204, Sent()),
        (302, NotNow("receiver_302", "The receiver answered 302.")),
        (404, NotNow("receiver_404", "The receiver answered 404.")),
        (410, Refused("receiver_gone", "The receiver answered 410.")),
        (500, NotNow("receiver_500", "The receiver answered 500.")),
    ],
)
def test_an_answer_of_a_webhook_means(status, outcome):
    assert webhook_outcome(Answer(status, {}, b"")) == outcome


LISTED = AllowList("graph.facebook.com, *.example.com, 10.1.0.0/16, 127.0.0.1, ::1")


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("graph.facebook.com", True),
        ("GRAPH.facebook.com.", True),
        ("evil-graph.facebook.com", False),
        ("graph.facebook.com.evil.org", False),
        ("n8n.example.com", True),
        ("example.com", False),
        ("badexample.com", False),
        ("10.1.2.3", True),
        ("10.2.2.3", False),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("8.8.8.8", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_only_listed_hosts_are_asked(host, admitted):
    assert LISTED.admits_name(host) is admitted


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("157.240.1.1", True),
        ("10.1.2.3", True),
        ("10.2.2.3", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.168.1.1", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("100.64.0.1", False),
    ],
)
def test_a_listed_name_stands_for_public_or_listed_addresses_only(address, admitted):
    assert LISTED.admits_address(ipaddress.ip_address(address)) is admitted


@given(st.text(max_size=400), st.integers(2, 60))
def test_the_parts_of_a_text_fit_and_are_all_of_it(text, limit):
    cut = parts(text, limit)
    assert all(0 < len(part.encode("utf-16-le", "surrogatepass")) // 2 <= limit for part in cut)
    assert "".join("".join(cut).split()) == "".join(text.split())


def test_a_text_is_cut_where_a_reader_would_pause():
    assert parts("One is here. Two is there. Three", 16) == [
        "One is here.",
        "Two is there.",
        "Three",
    ]
    assert parts("first line\nsecond line", 16) == ["first line", "second line"]
    assert parts("short", 16) == ["short"]
    assert parts("  ", 16) == []
