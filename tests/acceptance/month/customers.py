"""Customers with a rhythm of days and weeks, and what they say. Pure but for the dice."""

import datetime as dt
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

# What a step of a conversation is answered with: the last reply's quote, if there is one.
Wait = dt.timedelta
MINUTE = dt.timedelta(minutes=1)
PRODUCTS = (
    # what it is called, thicknesses in mm, how often, how gladly it is bought
    ("isodec", (50, 75, 100, 125, 150), 0.55, 1.0),
    ("poliestireno", (25, 50, 75, 100), 0.27, 1.15),
    ("lana de roca", (50, 75, 100), 0.18, 0.55),
)
CHANNELS = (("web", 0.6), ("instagram", 0.28), ("mercadolibre", 0.12))
GREETINGS = ("Hola!", "Buenas,", "Hola buen día,", "Hola, cómo andan?", "")
WEEKDAYS = (1.15, 1.05, 1.0, 1.0, 0.95, 0.5, 0.22)


@dataclass(frozen=True)
class Said:
    """What a customer writes, and how long after the reply before."""

    after: dt.timedelta
    text: str


def demand(local: dt.datetime) -> float:
    """How many conversations begin in an hour, in parts of a week of 100."""
    hour = local.hour + 0.5
    shape = math.exp(-(((hour - 11) / 2.6) ** 2)) + 0.85 * math.exp(-(((hour - 17.5) / 2.8) ** 2))
    return 100 * WEEKDAYS[local.weekday()] / 5.87 * (shape + 0.015) / 8.9


def arrivals(
    since: dt.datetime, until: dt.datetime, zone: ZoneInfo, a_week: float, rng: random.Random
) -> Iterator[dt.datetime]:
    """When conversations begin: a Poisson process with the rhythm of the business."""
    at = since
    highest = max(demand(since + dt.timedelta(hours=n)) for n in range(168)) * a_week / 100
    while True:
        at += dt.timedelta(hours=rng.expovariate(highest))
        if at >= until:
            return
        if rng.random() * highest < demand(at.astimezone(zone)) * a_week / 100:
            yield at


class Customer:
    """One customer, from the first word to the last. `eager` is how gladly quotes are taken at
    this time; `say` is asked for the next words after each reply."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.channel = rng.choices(*zip(*CHANNELS, strict=True))[0]
        names, thicknesses, shares, likings = zip(*PRODUCTS, strict=True)
        n = rng.choices(range(3), shares)[0]
        self._product, self._liking = names[n], likings[n]
        self._thickness = rng.choice(thicknesses[n])
        self._sides = rng.choice((3, 4, 5, 6, 8, 10, 12)), rng.choice((2, 3, 4, 5, 6))
        self._step = 0
        self._objected = False
        self.phone = f"+5989{rng.randrange(10**7):07d}"

    def first(self) -> str:
        """What is said first."""
        greeting = self._rng.choice(GREETINGS)
        if self._rng.random() < 0.12:
            self._step = 9  # asks something, and buys nothing
            return f"{greeting} {self._product} es bueno para el ruido?".strip()
        if self._rng.random() < 0.45:
            return f"{greeting} precio de {self._product}?".strip()
        self._step = 1
        return f"{greeting} precio de {self._all()}".strip()

    def _all(self) -> str:
        length, width = self._sides
        return f"{self._product} de {self._thickness} mm para {length}x{width} m"

    def next(self, quoted: bool, eager: float) -> Said | None:
        """What is said after a reply; None when nothing more is."""
        rng = self._rng
        self._step += 1
        if self._step == 1:
            length, width = self._sides
            return Said(
                rng.uniform(0.5, 4) * MINUTE, f"de {self._thickness} mm, {length}x{width} m"
            )
        if not quoted or self._step > 5:
            return None
        pause = rng.lognormvariate(3.2, 1.1) * MINUTE
        if self._step == 2 and rng.random() < 0.22 + 0.5 * (1 - eager):
            self._objected = True
            words = rng.choice(
                ("uh, es muy caro, hay descuento?", "tardan mucho? no puedo esperar")
            )
            return Said(pause, words)
        chance = 0.42 * self._liking * eager * (0.6 if self._objected else 1.0)
        roll = rng.random()
        self._step = 9
        if roll < chance:
            return Said(pause * 2, "dale, la acepto")
        if roll < chance + 0.2:
            return Said(pause * 2, "no gracias, no me interesa")
        return None

    def after_followup(self, eager: float) -> str | None:
        """What a follow-up is answered with, if it is."""
        roll = self._rng.random()
        if roll < 0.16 * eager:
            return "sí, la acepto"
        if roll < 0.3:
            return "gracias, lo sigo pensando"
        return None
