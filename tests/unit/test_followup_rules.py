"""The rules' file: the shipped one is sound, and what is wrong in another is said with its line."""

import datetime as dt
from pathlib import Path

import pytest

from agents.followup.rules import SHIPPED_RULES, load_rules
from orchestrator.errors import BadSettings


def faults(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(BadSettings) as refused:
        load_rules(path)
    return refused.value.detail.removeprefix("FOLLOWUPS_FILE: ").split("\n")


RULE = """rules:
  - id: one
    on: quote_sent
    after: 24h
    message: quote_sent
"""


def test_the_shipped_rules_cover_what_a_desk_needs() -> None:
    rules = load_rules()
    assert {rule.on for rule in rules.rules} == {
        "quote_sent",
        "quote_expiring",
        "quote_accepted",
        "conversation_idle",
    }
    unanswered = rules.rule("quote_unanswered")
    assert unanswered is not None
    assert unanswered.after == dt.timedelta(hours=24)
    assert rules.memory == dt.timedelta(days=30)
    assert SHIPPED_RULES.name == "followups.yaml"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RULE + "spread: 5m\n")
    rules = load_rules(path)
    assert (rules.rules[0].id, rules.spread) == ("one", dt.timedelta(minutes=5))


@pytest.mark.parametrize(
    ("change", "line", "about"),
    [
        (("after: 24h", "after: soon"), 4, "must be a duration"),
        (("after: 24h", "after: 400d"), 4, "from 0s to 90d"),
        (("after: 24h", "before: 24h"), 2, "needs after"),
        (("on: quote_sent", "on: rain"), 3, "quote_sent"),
        (("message: quote_sent", "message: poem"), 5, "quote_sent"),
        (("message: quote_sent", "message: custom"), 2, "by hand"),
        (("id: one", "id: by_hand"), 2, "by_hand"),
        (("id: one", "id: One two"), 2, "pattern"),
        (("after: 24h", "after: 24h\n    if: quote.total >"), 5, "not an expression"),
        (("after: 24h", "after: 24h\n    if: weather == 'fine'"), 5, "not weather"),
        (("after: 24h", "after: 24h\n    caps: {per_day: 0}"), 5, "greater than or equal to 1"),
        (("after: 24h", "after: 24h\n    after: 25h"), 5, "is written twice"),
        (("after: 24h", "after: 24h\n    afterwards: 1h"), 5, "not permitted"),
        (("rules:", "caps: {per_minute: many}\nrules:"), 1, "valid integer"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(
    tmp_path: Path, change: tuple[str, str], line: int, about: str
) -> None:
    (fault,) = faults(tmp_path, RULE.replace(*change))
    assert fault.startswith(f"rules.yaml:{line}: "), fault
    assert about in fault


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = RULE.replace("24h", "soon").replace("message: quote_sent", "message: poem")
    assert len(faults(tmp_path, text)) == 2


def test_two_rules_of_one_id(tmp_path: Path) -> None:
    twice = RULE + RULE.removeprefix("rules:\n")
    (fault,) = faults(tmp_path, twice)
    assert "several rules have the id one" in fault


@pytest.mark.parametrize("text", ["rules: [", "- a\n- b\n", "", "rules: 5"])
def test_what_is_no_such_file(tmp_path: Path, text: str) -> None:
    assert faults(tmp_path, text)[0].startswith("rules.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadSettings):
        load_rules(tmp_path / "none.yaml")
