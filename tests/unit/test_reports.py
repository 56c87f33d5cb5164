"""The time of a regular report, and a report as page and PDF."""

import datetime as dt
import re
from io import BytesIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pypdf import PdfReader
from reportlab.graphics.shapes import Drawing

from agents.analytics.charts import _steps, bars, heat, lines_over, steps_down
from agents.analytics.figures import figures
from agents.analytics.insights import Insight
from agents.analytics.layout import Layout, layout
from agents.analytics.page import page, svg
from agents.analytics.pdf import pdf
from agents.analytics.reports import period_of
from agents.analytics.tally import Tally, key
from agents.analytics.wording import Words
from agents.business import load_business

MONDAY = dt.datetime(2026, 3, 2, 9, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("kind", "now", "zone", "since", "until"),
    [
        ("daily", "2026-03-02T09:00Z", "America/Montevideo", "03-01T03:00", "03-02T03:00"),
        ("daily", "2026-03-02T02:00Z", "America/Montevideo", "02-28T03:00", "03-01T03:00"),
        ("weekly", "2026-03-04T09:00Z", "America/Montevideo", "02-23T03:00", "03-02T03:00"),
        ("weekly", "2026-03-02T09:00Z", "America/Montevideo", "02-23T03:00", "03-02T03:00"),
        # The clocks change on March 29: that week has an hour less.
        ("weekly", "2026-03-30T09:00Z", "Europe/Madrid", "03-22T23:00", "03-29T22:00"),
    ],
)
def test_a_regular_report_is_of_whole_days(
    kind: Any, now: str, zone: str, since: str, until: str
) -> None:
    moment = dt.datetime.fromisoformat(now)
    begins, ends = period_of(kind, moment, ZoneInfo(zone))
    told = [each.strftime("%m-%dT%H:%M") for each in (begins, ends)]
    assert told == [since, until]


NOTHING = Tally()


def shown(
    days: int = 30,
    language: Any = "es",
    product: str = "isodec",
    before: Tally | None = NOTHING,
) -> Layout:
    tallies = {}
    for n in range(days):
        tally = Tally()
        tally.count("messages", {"channel": "web"}, {"hour": "14"}, by=40 + n)
        tally.count("sessions", {"channel": "web"}, by=9)
        tally.count("quotes", {"product": product}, by=5)
        tally.count("quotes_offered", {"product": product}, by=5)
        tally.count("quotes_accepted", {"product": product}, by=n % 5)
        tally.time("answer", 1500, {"channel": "web"})
        tally.count("lost", {"reason": "price"})
        tallies[MONDAY.date() + dt.timedelta(days=n)] = tally
    told = figures(
        tallies,
        before,
        since=MONDAY.replace(hour=0),
        until=MONDAY.replace(hour=0) + dt.timedelta(days=days),
        zone="UTC",
    )
    found = [Insight("messages_failed", "bad", {"n": 3}, {"measures.messages_failed.value": 3})]
    names = {"isodec": "Isodec"}
    return layout(told, found, load_business(), Words(language), names, MONDAY)


def test_a_report_without_a_time_before_says_so_and_compares_nothing() -> None:
    html = page(shown(before=None), "es")
    assert "sin un período anterior" in html
    assert "antes" not in html
    assert "comparado con los 30 días anteriores" in page(shown(), "es")


def test_a_page_stands_alone_and_says_what_its_charts_show() -> None:
    html = page(shown(), "es")
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|src=", html)
    assert html.count("<svg") == html.count('role="img"') == 5
    assert "3 mensajes quedaron sin respuesta" in html
    assert "measures.messages_failed.value = 3" in html
    assert "2 mar 2026 a 31 mar 2026" in html


def test_what_customers_and_catalogues_call_things_is_no_markup() -> None:
    evil = "<img src=x onerror=alert(1)>&"
    layout_of_it = shown(product=evil)
    assert "<img" not in page(layout_of_it, "es")
    text = PdfReader(BytesIO(pdf(layout_of_it, Words("es")))).pages[1].extract_text()
    assert "<img" in text


@pytest.mark.parametrize("days", [1, 7, 30, 366])
@pytest.mark.parametrize("language", ["es", "en"])
def test_a_pdf_has_all_of_it_on_few_pages(days: int, language: Any) -> None:
    content = pdf(shown(days, language), Words(language))
    pages = PdfReader(BytesIO(content)).pages
    assert len(pages) <= 3
    assert f"{len(pages)}" in pages[-1].extract_text()
    assert len(content) < 500_000


def test_the_same_report_is_the_same_bytes() -> None:
    assert pdf(shown(), Words("es")) == pdf(shown(), Words("es"))


@pytest.mark.parametrize("top", [0, 0.001, 0.3, 1, 7, 99, 100, 101, 12_345, 9.9e9])
def test_axes_have_few_round_steps_that_reach_the_top(top: float) -> None:
    step, steps = _steps(top)
    assert 1 <= steps <= 5
    assert step * steps >= top * (1 - 1e-6)


def test_charts_of_nothing_can_be_drawn() -> None:
    words = Words("en")
    size = {"width": 400.0, "height": 100.0}
    drawings: list[Drawing] = [
        bars([], [], colour=None, written=words.number, **size),
        bars(["a"], [0], colour=None, written=words.number, **size),
        lines_over(["a", "b"], [("x", [None, None], None)], written=words.number, **size),
        lines_over(["a", "b", "c"], [("x", [1, None, 2], None)], written=words.number, **size),
        steps_down([], width=400, colour=None),
        heat(["mon"], [[0.0] * 24], width=400, colour=load_colour()),
    ]
    for each in drawings:
        assert svg(each).startswith("<svg")


def load_colour() -> Any:
    from reportlab.lib import colors

    return colors.HexColor("#0f4c5c")


def test_messages_stand_under_their_hour() -> None:
    tally = Tally()
    tally.counts[key("messages", hour="14")] = 7
    told = figures({MONDAY.date(): tally}, Tally(), since=MONDAY, until=MONDAY, zone="UTC")
    assert told["rhythm"][0][14] == 7
