"""Whatever the way in which an order is written, its total is right, or something is asked.

Orders are put together from the ways in which people write each of their parts. What has to be
understood is known by construction; a wrong total is never right, and few may be asked about.
"""

from dataclasses import dataclass
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.talk import Chat
from tests.unit.test_conversations import total_of

NAMES = {
    "isodec": ("isodec", "Isodec", "ISODEC", "isodek", "isodeck", "panel isodec", "iso dec"),
    "eps": ("eps", "espuma plast", "espumaplast", "telgopor", "poliestireno expandido"),
    "lana": ("lana de roca", "lana roca", "rockwool", "lana mineral"),
}
MADE = {"isodec": (50, 75, 100, 125, 150), "eps": (25, 50, 75, 100), "lana": (50, 75, 100)}
THICKNESSES = (
    "{mm}mm", "{mm} mm", "de {mm} mm", "espesor {mm}", "espesor: {mm}mm", "de {mm} milimetros",
    "({mm}mm)", "{cm} cm", "de {cm}cm", "de {cm} centímetros", "{cm}cm de espesor",
)  # fmt: skip
AFTER_ITS_NAME = ("{mm}", "de {mm}")
SIDES = (
    "{a}x{b}", "{a} x {b}", "{a}x{b}m", "{a} x {b} m", "{a}m x {b}m", "{a} mts x {b} mts",
    "{a} por {b}", "{a} metros por {b}", "{a} X {b}", "{a} × {b} m", "{a} * {b}",
    "{a} de largo por {b} de ancho", "{a} de largo y {b} de ancho", "largo {a} ancho {b}",
    "largo: {a} m, ancho: {b} m", "{b} de ancho y {a} de largo", "{a} mts de largo x {b} de ancho",
)  # fmt: skip
AREAS = ("{m2} m2", "{m2}m2", "{m2} mts2", "{m2} metros cuadrados", "{m2} m²", "unos {m2} m2")
PIECES = ("{n} de {size}", "{n} paneles de {size}", "{size}, {n} unidades", "{size} ({n} unidades)")
PLACES = ("{size}", "{size}", "para un techo de {size}", "techo de {size}", "medidas {size}")
EXTRAS = {
    "": ("", "", "", " color blanco", " con flete", ", con anclajes"),
    "gris": (" gris", ", color gris", " en gris"),
    "-flete": (" sin flete", ", s/flete", " sin el flete", ", flete no", ", lo retiro yo"),
    "-anclajes": (" sin anclajes", ", sin los anclajes", ", sin tornillos"),
    "gotero*2": (" con gotero en 2 lados", ", con 2 goteros", " y gotero en ambos lados"),
}
BEFORE = ("", "hola ", "buenas, ", "hola quiero cotizar ", "precio de ", "cto sale ", "necesito ")
AFTER = ("", "", " gracias", " xfa", ", gracias!", " 🙏")
BETWEEN = (" y ", ", y ", " + ", "\n", " y también ", "; ")


@dataclass(frozen=True)
class Order:
    """How it is written, and the corpus's way of telling what is due."""

    written: str
    due: str


@st.composite
def numbers(draw: st.DrawFn, *values: str) -> tuple[str, str]:
    value = draw(st.sampled_from(values))
    return value, value.replace(".", draw(st.sampled_from(".,")))


@st.composite
def sizes(draw: st.DrawFn) -> tuple[str, str]:
    if draw(st.booleans()):
        area, told = draw(numbers("10", "20", "48.5", "60", "120", "7.5"))
        return f"{area}m2", draw(st.sampled_from(AREAS)).format(m2=told)
    length, a = draw(numbers("10", "12", "6", "8.5", "7.2", "20", "15.75"))
    width, b = draw(numbers("5", "3", "2.5", "1.1", "4", "6.4"))
    sides = draw(st.sampled_from(SIDES)).format(a=a, b=b)
    if "largo" not in sides and draw(st.integers(0, 3)) == 0:
        n = draw(st.sampled_from((2, 3, 8, 12)))
        return f"{n}*{length}x{width}", draw(st.sampled_from(PIECES)).format(n=n, size=sides)
    return f"{length}x{width}", draw(st.sampled_from(PLACES)).format(size=sides)


@st.composite
def orders(draw: st.DrawFn) -> Order:
    product = draw(st.sampled_from(sorted(NAMES)))
    name, mm = draw(st.sampled_from(NAMES[product])), draw(st.sampled_from(MADE[product]))
    cm = f"{Decimal(mm) / 10:f}".removesuffix(".0").replace(".", ",")
    due, size = draw(sizes())
    if draw(st.integers(0, 3)) == 0:
        thick = draw(st.sampled_from([*THICKNESSES, *AFTER_ITS_NAME])).format(mm=mm, cm=cm)
        written = f"{size} de {name} {thick}"
    else:
        thick = draw(st.sampled_from([*THICKNESSES, *AFTER_ITS_NAME])).format(mm=mm, cm=cm)
        written = f"{name} {thick}{draw(st.sampled_from((' ', ', ', '. ', ' - ')))}{size}"
    return Order(written, f"{product} {mm} {due}")


@st.composite
def messages(draw: st.DrawFn) -> Order:
    first = draw(orders())
    if draw(st.integers(0, 2)) == 0:
        # The same thing said twice is one thing.
        second = draw(orders().filter(lambda other: other.due != first.due))
        written = first.written + draw(st.sampled_from(BETWEEN)) + second.written
        due = f"{first.due} + {second.due}"
    else:
        extra = draw(st.sampled_from(sorted(EXTRAS)))
        written = first.written + draw(st.sampled_from(EXTRAS[extra]))
        due = f"{first.due} {extra}".strip()
    return Order(draw(st.sampled_from(BEFORE)) + written + draw(st.sampled_from(AFTER)), due)


@given(messages())
@settings(max_examples=200, deadline=None)
def test_no_total_is_wrong(order: Order) -> None:
    talk = Chat()
    reply = talk.say(order.written)
    if talk.totals[-1] is None:
        assert "?" in reply.text
    else:
        assert Decimal(talk.totals[-1]) == total_of(order.due)


@given(st.lists(messages(), min_size=20, max_size=20))
@settings(max_examples=8, deadline=None)
def test_most_are_quoted_at_once(written: list[Order]) -> None:
    quoted = [Chat() for _ in written]
    for talk, order in zip(quoted, written, strict=True):
        talk.say(order.written)
    assert sum(talk.totals[-1] is not None for talk in quoted) >= 17
