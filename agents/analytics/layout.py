"""What a report shows, in which order: the same blocks for the page and for the PDF. Pure.

A block with nothing in it is left out: a business without follow-ups reads nothing of them.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from reportlab.graphics.shapes import Drawing
from reportlab.lib import colors

from agents.analytics.charts import bars, heat, lines_over, steps_down
from agents.analytics.insights import Insight, named
from agents.analytics.wording import Words
from agents.business import Business

Document = dict[str, Any]

WIDE: Final = 496.0  # points: an A4 page between its margins
HALF: Final = 238.0
MAX_ROWS: Final = 12
BAD: Final = colors.HexColor("#b3402a")


@dataclass(frozen=True)
class Tile:
    """One number in large, with what it was before. `better` is None where that says nothing."""

    name: str
    value: str
    note: str
    better: bool | None


@dataclass(frozen=True)
class Tiles:
    """The numbers that come first."""

    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Said:
    """Sentences, each with its tone and the figures that it rests on."""

    title: str
    sentences: tuple[tuple[str, str, str], ...]
    none: str
    rests_on: str


@dataclass(frozen=True)
class Chart:
    """A drawing; `half` ones stand two beside each other where there is room."""

    title: str
    drawing: Drawing
    told: str  # for who cannot see it
    half: bool = False


@dataclass(frozen=True)
class Rows:
    """A table; all columns but the first hold numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Tiles | Said | Chart | Rows


@dataclass(frozen=True)
class Layout:
    """A whole report."""

    title: str
    period: str
    compared: str
    made: str
    colour: str
    blocks: tuple[Block, ...]


def layout(
    told: Document,
    found: Sequence[Insight],
    business: Business,
    words: Words,
    names: dict[str, str],
    made_at: dt.datetime,
) -> Layout:
    """The blocks of a report. `names` are those of products, by id."""
    first = dt.datetime.fromisoformat(told["since"])
    last = dt.datetime.fromisoformat(told["until"]) - dt.timedelta(seconds=1)
    days = max(1, round((last - first) / dt.timedelta(days=1)))
    since, until = (_local_day(each, told["zone"]) for each in (first, last))
    one = since == until
    return Layout(
        title=words.say("title", name=business.name),
        period=words.say("one_day", since=words.date(since))
        if one
        else words.say("period", since=words.date(since), until=words.date(until)),
        compared=words.say("compared_not")
        if told["measures"]["messages"]["before"] is None
        else words.say("compared_day" if one else "compared", days=days),
        made=words.say("made_at", at=words.moment(made_at, told["zone"])),
        colour=business.colour,
        blocks=tuple(_Blocks(told, found, business, words, names).all()),
    )


def _local_day(time: dt.datetime, zone: str) -> dt.date:
    return time.astimezone(ZoneInfo(zone)).date()


class _Blocks:
    def __init__(
        self,
        told: Document,
        found: Sequence[Insight],
        business: Business,
        words: Words,
        names: dict[str, str],
    ) -> None:
        self.told, self.found, self.words, self.names = told, found, words, names
        self.colour = colors.HexColor(business.colour)
        self.days = told["days"]
        self.labels = [
            words.date(dt.date.fromisoformat(day["date"]), short=True) for day in self.days
        ]
        # Money is shown in the currency in which most was quoted.
        self.currency = max(
            told["money"], key=lambda each: Decimal(told["money"][each]["quoted"]), default=None
        )

    def all(self) -> Iterator[Block]:
        yield self.tiles()
        yield self.said()
        if len(self.days) > 1:
            yield from self.by_day()
        yield from self.funnel()
        if any(map(any, self.told["rhythm"])):
            weekdays = self.words.weekdays("abbreviated")
            drawing = heat(weekdays, self.told["rhythm"], width=WIDE, colour=self.colour)
            yield Chart(self.words.say("section_rhythm"), drawing, "")
        yield from self.tables()

    def measure(self, name: str) -> Document:
        found: Document = self.told["measures"][name]
        return found

    def written(self, name: str) -> str:
        measured = self.measure(name)
        return self.words.measured(measured["unit"], measured["value"])

    # -- numbers ------------------------------------------------------------------------

    def tiles(self) -> Tiles:
        wanted = (
            ("messages", True),
            ("sessions", True),
            ("answer_p50", False),
            ("quotes_offered", True),
            ("conversion", True),
        )
        tiles = [self.tile(name, more_is_better=more) for name, more in wanted]
        if self.currency is not None:
            now = Decimal(self.told["money"][self.currency]["won"])
            note, better = "", None
            if self.measure("messages")["before"] is not None:
                before = Decimal(self.told["money_before"].get(self.currency, {}).get("won", "0"))
                note = self.words.say("before", value=self.words.money(before, self.currency))
                better = None if now == before else now > before
            value = self.words.money(now, self.currency)
            tiles.append(Tile(self.words.say("won"), value, note, better))
        return Tiles(tuple(tiles))

    def tile(self, name: str, *, more_is_better: bool) -> Tile:
        measured = self.measure(name)
        now, before = measured["value"], measured["before"]
        note, better = "", None
        if before is not None:
            note = self.words.say("before", value=self.words.measured(measured["unit"], before))
            if now is not None and now != before:
                better = (now > before) == more_is_better
        return Tile(self.words.say(name), self.written(name), note, better)

    def said(self) -> Said:
        sentences = []
        for insight in self.found:
            text = self.words.insight(named(insight, self.names))
            rests_on = "; ".join(f"{name} = {value}" for name, value in insight.figures.items())
            sentences.append((insight.tone, text, rests_on))
        return Said(
            self.words.say("insights"),
            tuple(sentences),
            self.words.say("no_insights"),
            self.words.say("rests_on"),
        )

    # -- charts -------------------------------------------------------------------------

    def column(self, name: str) -> list[Any]:
        return [day[name] for day in self.days]

    def by_day(self) -> Iterator[Block]:
        words = self.words
        light = colors.linearlyInterpolatedColor(colors.white, self.colour, 0, 1, 0.75)
        yield Chart(
            words.say("section_days"),
            bars(
                self.labels,
                [n or 0 for n in self.column("messages")],
                width=WIDE,
                height=170,
                colour=light,
                written=words.number,
                name=words.say("messages"),
                lines=self.column("sessions"),
                lines_written=words.number,
                line_name=words.say("sessions"),
            ),
            f"{words.say('messages')}: {self.written('messages')}",
        )
        if self.currency is not None:
            currency = self.currency
            yield Chart(
                words.say("section_sales"),
                bars(
                    self.labels,
                    [float(day["won"].get(currency, 0)) for day in self.days],
                    width=WIDE,
                    height=150,
                    colour=light,
                    written=lambda amount: words.money(Decimal(amount), currency),
                    name=words.say("won"),
                    lines=self.column("conversion"),
                    lines_written=words.share,
                    line_name=words.say("conversion"),
                ),
                "",
            )
        if any(value is not None for value in self.column("answer_p50")):
            yield Chart(
                words.say("section_answers"),
                lines_over(
                    self.labels,
                    [
                        (words.say("answer_p50"), self.column("answer_p50"), self.colour),
                        (words.say("answer_p95"), self.column("answer_p95"), BAD),
                    ],
                    width=WIDE,
                    height=140,
                    written=lambda s: words.seconds(s) if s else "0",
                ),
                f"{words.say('answer_p50')}: {self.written('answer_p50')}",
            )

    def funnel(self) -> Iterator[Block]:
        words, steps = self.words, self.told["funnel"]
        top = steps["sessions"]
        if top:
            rows = [
                (words.say(name), n, f"{words.number(n)} · {words.share(n / top)}")
                for name, n in steps.items()
            ]
            drawing = steps_down(rows, width=HALF, colour=self.colour)
            told = ", ".join(f"{name} {note}" for name, _, note in rows)
            yield Chart(words.say("section_funnel"), drawing, told, half=True)
        reasons = self.measure("lost")["by"].get("reason", {})
        if reasons:
            whole = sum(reasons.values())
            rows = [
                (words.say(f"reason_{each}"), n, f"{words.number(n)} · {words.share(n / whole)}")
                for each, n in reasons.items()
            ]
            drawing = steps_down(rows, width=HALF, colour=BAD)
            told = ", ".join(f"{name} {note}" for name, _, note in rows)
            yield Chart(words.say("section_lost"), drawing, told, half=True)

    # -- tables -------------------------------------------------------------------------

    def tables(self) -> Iterator[Block]:
        names = ("quotes_offered", "quotes_accepted", "conversion")
        yield from self.table("product", names, money=True)
        yield from self.table("channel", ("messages", "sessions", "answer_p50", *names))
        rule = ("followups_sent", "followups_answered", "followups_accepted")
        yield from self.table("rule", rule, title="section_followups")
        agents = ("tasks", "wait_p95", "run_p95", "errors", "dead_letters", "utilisation")
        yield from self.table("agent", agents)

    def table(
        self, dimension: str, names: Sequence[str], *, title: str = "", money: bool = False
    ) -> Iterator[Block]:
        words = self.words
        parts = list(self.measure(names[0])["by"].get(dimension, {}))
        for name in names[1:]:
            parts += [each for each in self.measure(name)["by"].get(dimension, {})]
        parts = list(dict.fromkeys(parts))[:MAX_ROWS]
        if not parts:
            return
        header = [words.say(dimension), *(words.say(name) for name in names)]
        rows = []
        for part in parts:
            shown = self.names.get(part, part) if dimension == "product" else part
            row = [shown]
            for name in names:
                measured = self.measure(name)
                none = 0 if measured["unit"] == "count" else None
                value = measured["by"].get(dimension, {}).get(part, none)
                row.append(words.measured(measured["unit"], value))
            if money and self.currency is not None:
                products = self.told["money"][self.currency]["products"]
                won = Decimal(products.get(part, {}).get("won", "0"))
                row.append(words.money(won, self.currency))
            rows.append(tuple(row))
        if money and self.currency is not None:
            header.append(words.say("won"))
        yield Rows(words.say(title or f"section_{dimension}s"), tuple(header), tuple(rows))
