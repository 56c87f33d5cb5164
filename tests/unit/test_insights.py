"""Insights are there when the figures carry them, say which, and are silent otherwise."""

import datetime as dt
import random
import re
from typing import Any

import pytest
import yaml

from agents.analytics.figures import figures
from agents.analytics.insights import Insight, insights
from agents.analytics.tally import Tally
from agents.analytics.wording import TEXTS, Words

SINCE = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)


def tally(
    *,
    offered: dict[str, int] | None = None,
    accepted: dict[str, int] | None = None,
    messages: int = 0,
    answer_s: float = 2.0,
    lost: dict[str, int] | None = None,
    followups: tuple[int, int, int] | None = None,
) -> Tally:
    told = Tally()
    for name, parts in (("quotes_offered", offered), ("quotes_accepted", accepted)):
        for product, n in (parts or {}).items():
            told.count(name, {"product": product}, by=n)
            told.count("quotes", {"product": product}, by=n)
    if messages:
        told.count("messages", {"channel": "web"}, by=messages)
        told.time("answer", answer_s * 1000)
    for reason, n in (lost or {}).items():
        told.count("lost", {"reason": reason}, by=n)
    for name, n in zip(("sent", "answered", "accepted"), followups or (), strict=False):
        told.count(f"followups_{name}", {"rule": "quote_sent"}, by=n)
    return told


def found(now: Tally, before: Tally | None) -> list[Insight]:
    until = SINCE + dt.timedelta(days=7)
    return insights(figures({SINCE.date(): now}, before, since=SINCE, until=until, zone="UTC"))


def codes(now: Tally, before: Tally | None) -> set[str]:
    return {each.code for each in found(now, before)}


@pytest.mark.parametrize(
    ("now", "before", "code"),
    [
        (
            tally(offered={"a": 200}, accepted={"a": 90}),
            tally(offered={"a": 200}, accepted={"a": 50}),
            "conversion_up",
        ),
        (
            tally(offered={"a": 200}, accepted={"a": 30}),
            tally(offered={"a": 200}, accepted={"a": 80}),
            "conversion_down",
        ),
        (tally(messages=2000), tally(messages=1000), "messages_up"),
        (tally(messages=500, answer_s=9), tally(messages=500, answer_s=3), "answers_slower"),
        (tally(messages=500, answer_s=90), tally(messages=500, answer_s=90), "answers_slow"),
        (
            tally(offered={"a": 100, "b": 100}, accepted={"a": 60, "b": 20}),
            Tally(),
            "product_better",
        ),
        (tally(lost={"price": 60, "silence": 20}), Tally(), "lost_for_price"),
        (tally(followups=(60, 20, 5)), Tally(), "followups"),
    ],
)
def test_what_the_figures_carry_is_said(now: Tally, before: Tally, code: str) -> None:
    assert code in codes(now, before)


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (Tally(), Tally()),
        (tally(offered={"a": 10}, accepted={"a": 9}), tally(offered={"a": 10}, accepted={"a": 1})),
        (
            tally(offered={"a": 200}, accepted={"a": 60}),
            tally(offered={"a": 200}, accepted={"a": 55}),
        ),
        (tally(messages=1040), tally(messages=1000)),
        (tally(messages=90, answer_s=9), tally(messages=95, answer_s=3)),
        (tally(lost={"price": 22, "silence": 20}), Tally()),
        (tally(followups=(10, 9, 9)), Tally()),
    ],
)
def test_what_they_do_not_carry_is_not(now: Tally, before: Tally) -> None:
    assert codes(now, before) == set()


def test_chance_alone_seldom_makes_an_insight() -> None:
    """200 pairs of weeks from one and the same business: what is said of them is chance."""
    rng = random.Random(7)

    def week() -> Tally:
        offered = {name: rng.randint(60, 120) for name in ("a", "b", "c")}
        accepted = {name: sum(rng.random() < 0.3 for _ in range(n)) for name, n in offered.items()}
        messages = sum(max(0, round(rng.gauss(140, 18))) for _ in range(7))
        return tally(offered=offered, accepted=accepted, messages=messages)

    said = [codes(week(), week()) for _ in range(200)]
    assert sum(bool(each) for each in said) <= 10


@pytest.mark.parametrize("language", ["es", "en"])
def test_every_insight_reads_in_both_languages_and_names_its_figures(language: Any) -> None:
    words = Words(language)
    now = tally(
        offered={"a": 100, "b": 100},
        accepted={"a": 60, "b": 20},
        messages=500,
        answer_s=90,
        lost={"price": 60, "silence": 20},
        followups=(60, 20, 5),
    )
    told = found(now, tally(offered={"a": 200}, accepted={"a": 20}, messages=5000, answer_s=3))
    assert len(told) >= 7
    for each in told:
        text = words.insight(each)
        assert not re.search(r"[{}]|None", text)
        assert each.figures


def test_both_languages_have_the_same_texts_with_the_same_gaps() -> None:
    for name, texts in yaml.safe_load(TEXTS.read_text()).items():
        gaps = [sorted(re.findall(r"{\w+}", texts[language])) for language in ("es", "en")]
        assert gaps[0] == gaps[1], name


def test_numbers_are_written_as_people_write_them() -> None:
    spanish, english = Words("es"), Words("en")
    assert spanish.number(12345.6) == "12.346"
    assert english.number(12345.6) == "12,346"
    assert spanish.share(0.123) == "12 %"
    assert english.seconds(0.25) == "250 ms"
    assert english.seconds(3.21) == "3.2 s"
    assert english.seconds(600) == "10 min"


def test_nothing_is_compared_with_a_time_that_was_not_counted() -> None:
    now = tally(offered={"a": 200}, accepted={"a": 90}, messages=5000, answer_s=9.0)
    assert codes(now, None) & {"conversion_up", "messages_up", "answers_slower"} == set()
    assert codes(now, tally(messages=500)) >= {"messages_up"}
