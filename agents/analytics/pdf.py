"""A report as a PDF to print and to send. Pure: the same report, the same bytes."""

from io import BytesIO
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    KeepTogether,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from agents.analytics.layout import HALF, WIDE, Chart, Layout, Rows, Said, Tiles
from agents.analytics.wording import Words
from agents.numbered import numbered

MARGIN: Final = (A4[0] - WIDE) / 2
HEAD: Final = 24 * mm
FOOT: Final = 14 * mm
GREY: Final = colors.HexColor("#5a6770")
LINE: Final = colors.HexColor("#e0e5e8")
TONES: Final = {"good": "#1f7a4d", "bad": "#b3402a", "neutral": "#5a6770"}
# Helvetica has no arrows.
MARKS: Final = {"good": "+", "bad": "–", "neutral": "·"}

_TEXT: Final = ParagraphStyle("text", fontName="Helvetica", fontSize=9.5, leading=13)
_SMALL: Final = ParagraphStyle("small", _TEXT, fontSize=7.5, leading=10, textColor=GREY)
_HEADING: Final = ParagraphStyle(
    "heading", _TEXT, fontName="Helvetica-Bold", fontSize=10.5, leading=14, spaceAfter=3
)
_BIG: Final = ParagraphStyle("big", _TEXT, fontName="Helvetica-Bold", fontSize=14, leading=18)
_NUMBER: Final = ParagraphStyle("number", _TEXT, fontSize=8.5, leading=11, alignment=TA_RIGHT)
_CELL: Final = ParagraphStyle("cell", _TEXT, fontSize=8.5, leading=11)


def pdf(report: Layout, words: Words) -> bytes:
    """The PDF, on as many A4 pages as it takes."""
    written = BytesIO()
    document = BaseDocTemplate(
        written,
        pagesize=A4,
        title=f"{report.title}, {report.period}",
        author="",
        lang=words.language,
        invariant=True,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
    )
    frame = Frame(
        MARGIN,
        FOOT,
        WIDE,
        A4[1] - HEAD - FOOT,
        leftPadding=0,
        rightPadding=0,
        topPadding=0,
        bottomPadding=0,
    )

    def furnish(canvas: Canvas, page: int, pages: int) -> None:
        _furnish(canvas, report, words.say("page", page=page, pages=pages))

    document.addPageTemplates([PageTemplate(id="page", frames=[frame])])
    document.build(_flow(report), canvasmaker=numbered(furnish))
    return written.getvalue()


def _furnish(canvas: Any, report: Layout, page: str) -> None:
    top = A4[1] - 12 * mm
    accent = colors.HexColor(report.colour)
    canvas.setFillColor(accent)
    canvas.setFont("Helvetica-Bold", 15)
    canvas.drawString(MARGIN, top - 4, report.title)
    canvas.setFillColor(GREY)
    canvas.setFont("Helvetica", 9)
    canvas.drawRightString(A4[0] - MARGIN, top - 4, report.period)
    canvas.setStrokeColor(accent)
    canvas.setLineWidth(1.5)
    canvas.line(MARGIN, top - 12, A4[0] - MARGIN, top - 12)
    canvas.setFont("Helvetica", 7.5)
    canvas.drawString(MARGIN, FOOT - 14, f"{report.made}, {report.compared}")
    canvas.drawRightString(A4[0] - MARGIN, FOOT - 14, page)


def _flow(report: Layout) -> list[Flowable]:
    flow: list[Flowable] = []
    pair: list[Chart] = []
    for block in report.blocks:
        if isinstance(block, Chart) and block.half:
            pair.append(block)
            continue
        if pair:
            flow += _beside(pair)
            pair = []
        match block:
            case Tiles():
                flow.append(_tiles(block))
            case Said():
                flow += _said(block)
            case Chart():
                flow.append(KeepTogether([_heading(block.title), block.drawing]))
            case Rows():
                flow.append(KeepTogether([_heading(block.title), _rows(block)]))
        flow.append(Spacer(1, 9))
    return flow + (_beside(pair) if pair else [])


def _heading(text: str) -> Paragraph:
    return Paragraph(escape(text), _HEADING)


def _tiles(block: Tiles) -> Table:
    cells = []
    for tile in block.tiles:
        tone = {True: TONES["good"], False: TONES["bad"], None: TONES["neutral"]}[tile.better]
        cells.append(
            [
                Paragraph(escape(tile.name), _SMALL),
                Paragraph(escape(tile.value.replace(" ", "\xa0")), _BIG),
                Paragraph(f'<font color="{tone}">{escape(tile.note)}</font>', _SMALL),
            ]
        )
    across = 3
    rows = [cells[n : n + across] for n in range(0, len(cells), across)]
    rows[-1] += [[]] * (across - len(rows[-1]))
    table = Table(rows, colWidths=[WIDE / across] * across)
    table.setStyle(
        TableStyle(
            [
                ("BOX", (0, 0), (-1, -1), 0.6, LINE),
                ("INNERGRID", (0, 0), (-1, -1), 0.6, LINE),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 8),
                ("TOPPADDING", (0, 0), (-1, -1), 6),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 6),
            ]
        )
    )
    return table


def _said(block: Said) -> list[Flowable]:
    flow: list[Flowable] = [_heading(block.title)]
    if not block.sentences:
        return [*flow, Paragraph(escape(block.none), _TEXT)]
    for tone, text, _ in block.sentences:
        mark = f'<font color="{TONES[tone]}"><b>{MARKS[tone]}</b></font>'
        flow.append(Paragraph(f"{mark}&nbsp;&nbsp;{escape(text)}", _TEXT))
    return [KeepTogether(flow)]


def _beside(charts: list[Chart]) -> list[Flowable]:
    cells = [[[_heading(chart.title), chart.drawing] for chart in charts[:2]]]
    table = Table(cells, colWidths=[WIDE / 2] * len(cells[0]), hAlign="LEFT")
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                ("RIGHTPADDING", (0, 0), (-1, -1), WIDE / 2 - HALF),
            ]
        )
    )
    return [table, Spacer(1, 9)]


def _rows(block: Rows) -> Table:
    head = [f'<font size="7.5"><b>{escape(each)}</b></font>' for each in block.header]
    rows = [
        [Paragraph(text, _NUMBER if n else _CELL) for n, text in enumerate(row)]
        for row in (head, *([escape(cell) for cell in row] for row in block.rows))
    ]
    first = max(90.0, WIDE - 68 * (len(block.header) - 1))
    rest = (WIDE - first) / (len(block.header) - 1)
    table = Table(rows, colWidths=[first] + [rest] * (len(block.header) - 1), repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, -1), 0.5, LINE),
                ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
                ("LEFTPADDING", (0, 0), (-1, -1), 2),
                ("RIGHTPADDING", (0, 0), (-1, -1), 2),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
            ]
        )
    )
    return table
