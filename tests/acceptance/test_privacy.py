"""What every desk is held against when it closes would be seen."""

import base64
import json

import privacy
import pytest

pytestmark = [pytest.mark.acceptance]

SAID = "hola, soy Xilofonazo y quiero isodec 100 de 10x5"
PHONE = "+59899123456"
TOKEN = "operator-token-0123456789"


@pytest.fixture
def secrets(engine):
    """Of a desk where somebody has said something."""
    engine.sessions.open("s", PHONE, caller="local", channel="web", trusted=True)
    engine.database["tasks"].insert_one(
        {"_id": "t", "payload": {"message": SAID, "phone": PHONE}, "result": {"text": "Sí, señor"}}
    )
    engine.database["quotes"].insert_one({"_id": "q", "customer": {"name": "Xilofonazo"}})
    return privacy.secrets_of(engine.database, {"OPERATOR_TOKEN": TOKEN, "KEY_PREFIX": "a" * 20})


def in_celery(text: str) -> str:
    return json.dumps({"body": base64.b64encode(json.dumps([[text], {}]).encode()).decode()})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"claimed {SAID}", "tasks.message"),
        (in_celery(SAID), "tasks.message"),
        ("from 59899123456", ".phone"),
        ("from 099123456.", ".phone"),
        ('{"name": "Xilofonazo"}', "quotes.name"),
        (f"Bearer {TOKEN}", "OPERATOR_TOKEN"),
    ],
)
def test_a_secret_is_found_wherever_it_hides(secrets, text, what):
    assert any(what in leak for leak in privacy.leaks({"here": text}, secrets))


@pytest.mark.parametrize("text", ["hola", "soy Ana", "1599123456789", "Xilofonazos"])
def test_what_only_looks_like_one_is_not(secrets, text):
    assert privacy.leaks({"here": text}, secrets) == []


def test_redis_is_heard_also_of_what_is_gone_at_once(engine, redis_server, secrets):
    ear = privacy.Ear(redis_server.url)
    engine.redis.set("k", in_celery(SAID))
    engine.redis.getdel("k")
    engine.redis.publish("c", 'señor "Xilofonazo"')
    engine.redis.hset("h", "f", SAID)
    heard = ear.close()
    assert 'señor "Xilofonazo"' in heard
    found = privacy.leaks({"heard": heard}, secrets)
    assert {leak.split(" holds ")[1].split(":")[0] for leak in found} >= {
        "tasks.message",
        "quotes.name",
    }
    assert privacy.leaks({"Redis": privacy.everything_in(engine.redis)}, secrets)
    engine.redis.delete("h")
    assert privacy.leaks({"Redis": privacy.everything_in(engine.redis)}, secrets) == []
