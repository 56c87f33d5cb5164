"""Both dialects mean the same, and a field that cannot be is named."""

import pytest
from pydantic import ValidationError

from api.schemas import ChatMessage, TaskRequest, Waiting, e164
from orchestrator.context import MAX_MESSAGE_CHARS
from orchestrator.errors import Invalid


def turn(**body):
    return ChatMessage.model_validate(body).turn()


def refused(**body):
    with pytest.raises(Invalid) as error:
        turn(**body)
    return [problem["pointer"] for problem in error.value.facts["errors"]]


def invalid(**body):
    with pytest.raises(ValidationError) as error:
        ChatMessage.model_validate(body)
    return {problem["loc"] for problem in error.value.errors()}


@pytest.mark.parametrize(
    "body",
    [
        {"message": "hola", "phone": "099123456", "session_id": "s1"},
        {"mensaje": "hola", "telefono": "+598 99 123 456", "sesionId": "s1"},
        {"mensaje": "hola", "telefono": "59899123456", "sesion_id": "s1"},
        {"message": "hola", "telefono": "099 123 456", "sesionId": "s1"},
        {"message": "hola", "mensaje": "hola", "phone": "099123456", "session_id": "s1"},
    ],
)
def test_every_dialect_means_the_same(body):
    read = turn(**body)
    assert (read.message, read.phone, read.session_id) == ("hola", "+59899123456", "s1")


@pytest.mark.parametrize("nothing", [None, ""])
def test_session_and_phone_may_be_absent_null_or_empty(nothing):
    assert turn(message="hola") == turn(message="hola", session_id=nothing, phone=nothing)
    assert turn(mensaje="hola").session_id is None


def test_the_dialect_tells_the_language_of_our_own_sentences():
    assert turn(mensaje="hola").spanish_names
    assert not turn(message="hola", session_id="s").spanish_names


def test_names_of_one_meaning_must_not_differ():
    assert refused(message="hola", mensaje="chau") == ["/mensaje"]
    assert refused(message="hola", session_id="a", sesionId="b") == ["/sesionId"]
    assert refused(message="hola", phone="099123456", telefono="099123457") == ["/telefono"]


def test_a_message_without_text_is_refused():
    assert refused() == ["/message"]
    assert refused(message=None) == ["/message"]
    assert invalid(mensaje="") == {("mensaje",)}
    assert invalid(message=" \n\t ") == {("message",)}


def test_a_long_text_is_taken_to_the_limit_and_not_beyond():
    assert len(turn(message="ñ" * MAX_MESSAGE_CHARS).message) == MAX_MESSAGE_CHARS
    assert invalid(message="a" * (MAX_MESSAGE_CHARS + 1)) == {("message",)}


@pytest.mark.parametrize("text", ["dos\nrenglones", "tab\tulador", "👷🏽‍♂️ 10 m²", "<b>hola</b>"])
def test_what_people_write_is_taken(text):
    assert turn(message=text).message == text


@pytest.mark.parametrize("text", ["a\0b", "a\x1b[31m", "a\x7f", "a\x85"])
def test_control_characters_are_refused(text):
    assert invalid(message=text) == {("message",)}
    assert invalid(message="hola", session_id=text) == {("session_id",)}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"message": 5}, "message"),
        ({"message": ["hola"]}, "message"),
        ({"message": "hola", "phone": 59899123456}, "phone"),
        ({"message": "hola", "session_id": {"$gt": ""}}, "session_id"),
        ({"message": "hola", "session_id": "s" * 129}, "session_id"),
        ({"message": "hola", "language": "fr"}, "language"),
        ({"message": "hola", "channel": "a b"}, "channel"),
        ({"message": "hola", "mesage": "typo"}, "mesage"),
    ],
)
def test_wrong_types_and_unknown_names_are_refused(body, field):
    assert invalid(**body) == {(field,)}


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("099123456", "+59899123456"),
        ("99 123 456", "+59899123456"),
        ("+59899123456", "+59899123456"),
        ("59899123456", "+59899123456"),
        ("5491122334455", "+5491122334455"),
        ("+54 9 11 2233-4455", "+5491122334455"),
        ("+1234567890", "+1234567890"),
    ],
)
def test_phones_become_e164(written, number):
    assert e164(written, "phone") == number


@pytest.mark.parametrize("written", ["hola", "-", "+", "0", "🙂"])
def test_what_is_no_phone_is_refused_by_its_name(written):
    assert refused(mensaje="hola", telefono=written) == ["/telefono"]


@pytest.mark.parametrize("wait", ["-1", "31", "nan", "inf", "soon"])
def test_a_wait_beyond_its_range_is_refused(wait):
    with pytest.raises(ValidationError):
        Waiting.model_validate({"wait": wait})


def test_a_wait_is_seconds():
    assert Waiting.model_validate({"wait": "0"}).wait == 0
    assert Waiting.model_validate({"wait": "2.5"}).wait == 2.5
    assert Waiting.model_validate({}).wait is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": ""},
        {"type": "a b"},
        {"type": "t", "payload": []},
        {"type": "t", "priority": "urgent"},
        {"type": "t", "strategy": "guess"},
        {"type": "t", "deadline_s": 0},
        {"type": "t", "deadline_s": "5"},
        {"type": "t", "capabilities": "nlp"},
        {"type": "t", "caller": "operator"},
    ],
)
def test_task_requests_are_strict(body):
    with pytest.raises(ValidationError):
        TaskRequest.model_validate(body)
