"""What is read can be stored; what cannot be read or stored is refused, and never quoted."""

import contextlib
import json

import pytest
from flask import Flask, request
from hypothesis import given
from hypothesis import strategies as st

from api.errors import Malformed, WrongContentType
from api.inputs import MAX_DEPTH, idempotency_key, parse_json, pointer, read_body

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_json_is_read_as_json(value):
    assert parse_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw):
    with contextlib.suppress(Malformed):
        parse_json(raw)


def test_a_byte_order_mark_is_skipped():
    assert parse_json(b'\xef\xbb\xbf{"message": "hola"}') == {"message": "hola"}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"message": "line\nbreak"}', "line 1, column 18"),
        (b'{"message": "a "quoted" word"}', "line 1, column 17"),
        (b"", "line 1, column 1"),
        (b"{", "line 1, column 2"),
        (b'{"message": "\xff"}', "not UTF-8 (byte 13)"),
        ('{"message": "hola"}'.encode("utf-16"), "not UTF-8"),
        (b'{"message": "a", "message": "b"}', "'message' is repeated"),
        (b'{"payload": {"a": 1, "a": 2}}', "'a' is repeated"),
        (b'{"wait": NaN}', "NaN is not JSON"),
        (b'{"wait": -Infinity}', "-Infinity is not JSON"),
        (b"[" * 60_000, f"deeper than {MAX_DEPTH}"),
        (b"[" * 40 + b"]" * 40, f"deeper than {MAX_DEPTH}"),
        (b"9" * 5000, "too long"),
    ],
)
def test_broken_json_is_refused_with_its_place(raw, told):
    with pytest.raises(Malformed) as refused:
        parse_json(raw)
    assert told in refused.value.detail


@pytest.mark.parametrize(
    ("raw", "where", "why"),
    [
        (rb'{"a": {"b": ["x", "\ud83d"]}}', "/a/b/1", "surrogate"),
        (b'{"a": 1e999}', "/a", "beyond measure"),
        (b'{"a": [9223372036854775808]}', "/a/0", "64 bits"),
        (rb'{"a": {"b\u0000c": 1}}', "/a", "name"),
        (rb'{"a": {"\ud83d": 1}}', "/a", "name"),
    ],
)
def test_json_that_cannot_be_stored_is_refused_with_its_pointer(raw, where, why):
    with pytest.raises(Malformed) as refused:
        parse_json(raw)
    [error] = refused.value.facts["errors"]
    assert error["pointer"] == where
    assert why in error["detail"]


def test_a_repeated_name_that_could_be_a_customers_text_is_not_quoted():
    with pytest.raises(Malformed) as refused:
        parse_json(b'{"call me at 099": 1, "call me at 099": 2}')
    assert "099" not in str(refused.value)


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({"Content-Type": "application/json"}, True),
        ({"Content-Type": "application/json; charset=UTF-8"}, True),
        ({"Content-Type": "application/vnd.api+json"}, True),
        ({"Content-Type": "application/json; charset=latin-1"}, False),
        ({"Content-Type": "text/plain"}, False),
        ({"Content-Type": "application/x-www-form-urlencoded"}, False),
        ({}, False),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, False),
    ],
)
def test_only_json_in_utf8_is_read(headers, accepted):
    with Flask("test").test_request_context(method="POST", data=b"{}", headers=headers):
        if accepted:
            assert read_body(request) == {}
        else:
            with pytest.raises(WrongContentType):
                read_body(request)


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"with space"', "with space"),
        (r'"a\"b\\c"', r"a\b".replace("\\", '"') + "\\c"),
        ("wamid.HBgLNTk4OTkxMjM0NTYVAgA=", "wamid.HBgLNTk4OTkxMjM0NTYVAgA="),
        ("  bare  ", "bare"),
        ("x" * 255, "x" * 255),
    ],
)
def test_an_idempotency_key_is_read_quoted_or_bare(sent, key):
    with Flask("test").test_request_context(headers={"Idempotency-Key": sent}):
        assert idempotency_key(request) == key


@pytest.mark.parametrize(
    "sent",
    ["", '""', '"', '"a', 'a"', "two words", '"a", "b"', "a,b", '"a";p=1', "x" * 256, "ñ", r'"\a"'],
)
def test_an_idempotency_key_of_another_form_is_refused(sent):
    with (
        Flask("test").test_request_context(headers={"Idempotency-Key": sent}),
        pytest.raises(Malformed) as refused,
    ):
        idempotency_key(request)
    assert refused.value.facts["errors"][0]["header"] == "Idempotency-Key"


def test_no_idempotency_key_is_none():
    with Flask("test").test_request_context():
        assert idempotency_key(request) is None


def test_pointers_escape_as_rfc_6901_says():
    assert pointer("a/b", "m~n", 0) == "/a~1b/m~0n/0"
    assert pointer() == ""


def test_a_pointer_can_always_be_written():
    assert pointer("x" * 100, "\ud83d") == f"/{'x' * 64}/?"
