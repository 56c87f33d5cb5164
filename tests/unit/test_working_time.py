"""The business's hours, in its zone, without its holidays."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.working_time import WorkingTime, parse_hours

ZONE = ZoneInfo("America/Montevideo")
SHOP = WorkingTime(
    ZONE, parse_hours("mon-fri 09:00-12:30, mon-fri 14:00-18:00, sat 09:00-13:00"), "UY"
)


def local(*when: int) -> dt.datetime:
    return dt.datetime(*when, tzinfo=ZONE).astimezone(dt.UTC)


@pytest.mark.parametrize(
    ("moment", "opens"),
    [
        (local(2026, 3, 2, 10, 0), local(2026, 3, 2, 10, 0)),  # a Monday
        (local(2026, 3, 2, 8, 59), local(2026, 3, 2, 9, 0)),
        (local(2026, 3, 2, 12, 30), local(2026, 3, 2, 14, 0)),
        (local(2026, 3, 2, 18, 0), local(2026, 3, 3, 9, 0)),
        (local(2026, 3, 6, 19, 0), local(2026, 3, 7, 9, 0)),
        (local(2026, 3, 7, 13, 0), local(2026, 3, 9, 9, 0)),  # over Sunday
        (local(2026, 12, 24, 20, 0), local(2026, 12, 26, 9, 0)),  # Christmas is a Friday
        (local(2026, 5, 1, 10, 0), local(2026, 5, 2, 9, 0)),
    ],
)
def test_it_opens_next(moment, opens):
    assert SHOP.opens(moment) == opens


seconds = st.integers(0, 6 * 365 * 86_400)
moments = seconds.map(lambda n: dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=n))


@given(moments)
def test_what_opens_is_open_and_nothing_before_it_is(moment):
    opens = SHOP.opens(moment)
    assert opens >= moment
    assert SHOP.is_open(opens)
    if opens > moment:
        assert not SHOP.is_open(moment)
        assert not SHOP.is_open(moment + (opens - moment) / 2)


def test_hours_keep_their_time_of_day_when_clocks_change():
    berlin = ZoneInfo("Europe/Berlin")
    shop = WorkingTime(berlin, parse_hours("mon-sun 09:00-18:00"))
    for day in (28, 29, 30):
        night = dt.datetime(2026, 3, day, 1, 0, tzinfo=berlin).astimezone(dt.UTC)
        assert shop.opens(night).astimezone(berlin).hour == 9


@given(moments)
def test_a_shop_that_never_closes_is_open_at_every_moment(moment):
    assert WorkingTime(ZONE, parse_hours("mon-sun 00:00-24:00")).is_open(moment)


def test_a_bar_closes_at_midnight():
    bar = WorkingTime(ZONE, parse_hours("fri 20:00-24:00"))
    assert bar.is_open(local(2026, 12, 4, 23, 59, 59))
    assert bar.opens(local(2026, 12, 5, 0, 0)) == local(2026, 12, 11, 20, 0)


@pytest.mark.parametrize(
    "text", ["", "always", "mon 9-18", "mon 18:00-09:00", "xyz 09:00-18:00", "mon 25:00-26:00"]
)
def test_hours_that_cannot_be_are_refused(text):
    with pytest.raises(ValueError, match=r"must be|is not before|hour|range"):
        parse_hours(text)


def test_days_may_wrap_around_the_week():
    assert sorted(parse_hours("sat-mon 10:00-11:00")) == [0, 5, 6]
