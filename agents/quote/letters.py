"""Text on a page, in whatever letters a customer's name is written.

Keeps secret that a PDF's own fonts draw Western European letters only: what they cannot draw
is set in DejaVu Sans, which is embedded then (`fonts/`, with its licence). Pictures, and scripts
that need more than one letter after the other (Arabic, Chinese), remain question marks; signs
that are no letters, such as emoji, are left out.
"""

import unicodedata
from functools import lru_cache
from importlib.resources import as_file, files
from itertools import groupby
from typing import Final
from xml.sax.saxutils import escape

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

_WIDE: Final = {"Helvetica": "DejaVuSans", "Helvetica-Bold": "DejaVuSans-Bold"}
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL"})


def marked_up(text: str, font: str) -> str:
    """The text as reportlab's paragraphs take it, markup in it being text."""
    return "".join(
        escape(run) if used == font else f'<font name="{used}">{escape(run)}</font>'
        for used, run in _runs(text, font)
    )


def draw(
    canvas: Canvas,
    x: float,
    y: float,
    text: str,
    font: str,
    size: float,
    *,
    most: float = float("inf"),
) -> None:
    """Draw a line from x on; cut, with an ellipsis, where it is wider than `most` points."""
    runs = _runs(text, font)
    if _width(runs, size) > most:
        while text and _width(_runs(f"{text}…", font), size) > most:
            text = text[:-1]
        runs = _runs(f"{text}…", font)
    for used, run in runs:
        canvas.setFont(used, size)
        canvas.drawString(x, y, run)
        x += pdfmetrics.stringWidth(run, used, size)


def plain(text: str) -> str:
    """The text as a PDF may say it of itself."""
    return text.encode("utf-8", "ignore").decode()


def _width(runs: list[tuple[str, str]], size: float) -> float:
    return sum(float(pdfmetrics.stringWidth(run, used, size)) for used, run in runs)


def _runs(text: str, font: str) -> list[tuple[str, str]]:
    """The text in pieces, each with the font that draws it."""
    text = unicodedata.normalize("NFC", text)
    if _is_western(text):
        return [(font, text)]
    drawn: list[tuple[str, str]] = []
    for char in text:
        if drawn and drawn[-1][0] != font and char.isascii() and not char.isalnum():
            drawn.append((drawn[-1][0], char))  # what stands between words goes with them
        elif _is_western(char):
            drawn.append((font, char))
        elif unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT and ord(char) in _glyphs(font):
            drawn.append((_WIDE[font], char))
        elif unicodedata.category(char)[0] in "LN":
            drawn.append((font, "?"))
    return [
        (used, "".join(char for _, char in run))
        for used, run in groupby(drawn, key=lambda each: each[0])
    ]


def _is_western(text: str) -> bool:
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


@lru_cache
def _glyphs(font: str) -> frozenset[int]:
    """The characters of the font that stands in for one; it is read when it is first needed."""
    name = _WIDE[font]
    with as_file(files(__package__) / "fonts" / f"{name}.ttf") as path:
        loaded = TTFont(name, str(path))
    pdfmetrics.registerFont(loaded)
    return frozenset(loaded.face.charToGlyph)
