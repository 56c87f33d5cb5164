"""The charts of a report, each a drawing that goes into the page as SVG and into the PDF as it
is. Pure.

Keeps secret how ReportLab's charts are made to be read at a glance: few colours, few lines, the
values written where there is room for them, axes that begin at zero.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.charts.linecharts import HorizontalLineChart
from reportlab.graphics.shapes import Drawing, Group, Rect, String
from reportlab.graphics.widgets.markers import makeMarker
from reportlab.lib import colors
from reportlab.pdfbase.pdfmetrics import stringWidth

FONT: Final = "Helvetica"
BOLD: Final = "Helvetica-Bold"
SIZE: Final = 8
INK: Final = colors.HexColor("#22303a")
GREY: Final = colors.HexColor("#6b7780")
GRID: Final = colors.HexColor("#e3e8eb")
SECOND: Final = colors.HexColor("#e0a030")
MOST_LABELS: Final = 10
Format = Callable[[float], str]


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    width: float,
    height: float,
    colour: colors.Color,
    written: Format,
    lines: Sequence[float | None] = (),
    lines_written: Format | None = None,
    line_name: str = "",
    name: str = "",
) -> Drawing:
    """A bar for each label, with a line above them on an axis of its own where one is given."""
    drawing = Drawing(width, height)
    top = max([*values, 0])
    step, steps = _steps(top)
    left = 6 + max(_room(written(n * step), FONT, SIZE) for n in range(steps + 1))
    right = 6.0
    high = max([each for each in lines if each is not None], default=0)
    line_step, line_steps = _steps(high)
    if lines and lines_written is not None:
        right += max(_room(lines_written(n * line_step), FONT, SIZE) for n in range(line_steps + 1))
    chart = VerticalBarChart()
    _place(chart, left, right, width, height, legend=bool(name or line_name))
    chart.data = [tuple(values)]
    chart.barWidth, chart.groupSpacing, chart.barSpacing = 1, 0.35, 0
    chart.bars[0].fillColor = colour
    chart.bars[0].strokeColor = None
    _axes(chart, labels, step, steps, written)
    drawing.add(chart)
    if lines and lines_written is not None:
        drawing.add(_line(lines, left, right, width, height, line_step, line_steps, lines_written))
    _legend(drawing, [(name, colour), (line_name, SECOND if line_name else None)], left, height)
    return drawing


def lines_over(
    labels: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None], colors.Color]],
    *,
    width: float,
    height: float,
    written: Format,
) -> Drawing:
    """Lines over the same labels and one axis; a value that there is not leaves a gap."""
    drawing = Drawing(width, height)
    top = max((each for _, values, _ in series for each in values if each is not None), default=0)
    step, steps = _steps(top)
    left = 6 + max(_room(written(n * step), FONT, SIZE) for n in range(steps + 1))
    chart = HorizontalLineChart()
    _place(chart, left, 6, width, height, legend=True)
    chart.data = [tuple(values) for _, values, _ in series]
    for n, (_, _, colour) in enumerate(series):
        _style(chart.lines[n], colour, len(labels))
    _axes(chart, labels, step, steps, written)
    drawing.add(chart)
    _legend(drawing, [(name, colour) for name, _, colour in series], left, height)
    return drawing


def steps_down(
    rows: Sequence[tuple[str, float, str]], *, width: float, colour: colors.Color
) -> Drawing:
    """Bars across, one below the other, each with its name before and a note behind it."""
    row_height, bar_height = 22.0, 14.0
    drawing = Drawing(width, max(1, len(rows)) * row_height + 4)
    names = 8 + max((_room(name, FONT, SIZE + 1) for name, _, _ in rows), default=0)
    notes = 8 + max((_room(note, BOLD, SIZE + 1) for _, _, note in rows), default=0)
    room = max(20.0, width - names - notes)
    top = max((value for _, value, _ in rows), default=0) or 1
    for n, (name, value, note) in enumerate(rows):
        y = drawing.height - (n + 1) * row_height + (row_height - bar_height) / 2
        length = max(1.0, room * value / top)
        drawing.add(_text(names - 8, y + 4, name, SIZE + 1, INK, "end"))
        drawing.add(Rect(names, y, room, bar_height, fillColor=GRID, strokeColor=None, rx=2, ry=2))
        drawing.add(
            Rect(names, y, length, bar_height, fillColor=colour, strokeColor=None, rx=2, ry=2)
        )
        drawing.add(_text(names + room + 8, y + 4, note, SIZE + 1, INK, "start", BOLD))
    return drawing


def heat(
    rows: Sequence[str], grid: Sequence[Sequence[float]], *, width: float, colour: colors.Color
) -> Drawing:
    """A field for each weekday and hour, the darker the more; hours are written below."""
    cell_height = 15.0
    left = 8 + max(_room(row, FONT, SIZE) for row in rows)
    cell = (width - left) / 24
    drawing = Drawing(width, cell_height * len(rows) + 14)
    top = max((value for row in grid for value in row), default=0) or 1
    for n, (name, row) in enumerate(zip(rows, grid, strict=True)):
        y = drawing.height - (n + 1) * cell_height
        drawing.add(_text(left - 6, y + 4, name, SIZE, INK, "end"))
        for hour, value in enumerate(row):
            # The eye takes the root of an intensity for its half.
            shade = colors.linearlyInterpolatedColor(
                colors.HexColor("#f1f4f5"), colour, 0, 1, math.sqrt(value / top)
            )
            drawing.add(
                Rect(
                    left + hour * cell,
                    y,
                    cell - 1,
                    cell_height - 1,
                    fillColor=shade,
                    strokeColor=None,
                )
            )
    for hour in range(0, 24, 3):
        drawing.add(_text(left + hour * cell, 3, f"{hour}:00", SIZE - 1, GREY, "start"))
    return drawing


def _room(text: str, font: str, size: float) -> float:
    """What a text takes at most: where there is no Helvetica a browser takes a wider font."""
    return 1.2 * float(stringWidth(text, font, size))


def _steps(top: float) -> tuple[float, int]:
    """A round step, and how many of them reach the top: axes begin at zero."""
    if top <= 0:
        return 1.0, 1
    raw = top / 4
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(each * magnitude for each in (1, 2, 2.5, 5, 10) if each * magnitude >= raw)
    return step, max(1, math.ceil(top / step - 1e-9))


def _place(
    chart: Any, left: float, right: float, width: float, height: float, *, legend: bool
) -> None:
    chart.x, chart.y = left, 18
    chart.width, chart.height = width - left - right, height - 24 - (14 if legend else 0)


def _axes(chart: Any, labels: Sequence[str], step: float, steps: int, written: Format) -> None:
    every = max(1, math.ceil(len(labels) / MOST_LABELS))
    shown = [label if n % every == 0 else "" for n, label in enumerate(labels)]
    below, beside = chart.categoryAxis, chart.valueAxis
    below.categoryNames = shown
    below.labels.fontName, below.labels.fontSize, below.labels.fillColor = FONT, SIZE, GREY
    below.labels.dy = -3
    below.visibleTicks = False
    below.strokeColor = GRID
    beside.valueMin, beside.valueMax, beside.valueStep = 0, step * steps, step
    beside.labels.fontName, beside.labels.fontSize, beside.labels.fillColor = FONT, SIZE, GREY
    beside.labelTextFormat = written
    beside.visibleAxis = beside.visibleTicks = False
    beside.visibleGrid, beside.gridStrokeColor, beside.gridStrokeWidth = True, GRID, 0.6


def _style(line: Any, colour: colors.Color, points: int) -> None:
    line.strokeColor, line.strokeWidth = colour, 1.8
    if points <= 40:
        line.symbol = makeMarker("FilledCircle", size=3.5, fillColor=colour, strokeColor=colour)


def _line(
    values: Sequence[float | None],
    left: float,
    right: float,
    width: float,
    height: float,
    step: float,
    steps: int,
    written: Format,
) -> Group:
    chart = HorizontalLineChart()
    _place(chart, left, right, width, height, legend=True)
    chart.data = [tuple(values)]
    _style(chart.lines[0], SECOND, len(values))
    chart.categoryAxis.visible = False
    chart.categoryAxis.categoryNames = [""] * len(values)
    axis = chart.valueAxis
    axis.valueMin, axis.valueMax, axis.valueStep = 0, step * steps, step
    axis.visible = False
    marks = [
        _text(
            width - right + 4,
            chart.y + chart.height * n / steps - 3,
            written(n * step),
            SIZE,
            SECOND,
            "start",
        )
        for n in range(steps + 1)
    ]
    return Group(chart, *marks)


def _legend(drawing: Drawing, names: Sequence[tuple[str, Any]], left: float, height: float) -> None:
    x = left
    for name, colour in names:
        if not name:
            continue
        drawing.add(Rect(x, height - 10, 8, 8, fillColor=colour, strokeColor=None, rx=2, ry=2))
        drawing.add(_text(x + 12, height - 9, name, SIZE, INK, "start"))
        x += 26 + _room(name, FONT, SIZE)


def _text(
    x: float, y: float, text: str, size: float, colour: Any, anchor: str, font: str = FONT
) -> String:
    return String(x, y, text, fontName=font, fontSize=size, fillColor=colour, textAnchor=anchor)
