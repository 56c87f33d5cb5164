"""A report as a page that stands alone: no script, no request to anywhere. Pure."""

from html import escape
from itertools import groupby
from typing import Final

from reportlab.graphics import renderSVG
from reportlab.graphics.shapes import Drawing

from agents.analytics.layout import Block, Chart, Layout, Rows, Said, Tile, Tiles
from agents.catalogue import Language

_STYLE: Final = """
:root { --accent: #0f4c5c; color-scheme: light }
* { box-sizing: border-box }
body { background: #f4f6f7; color: #22303a; font: 16px/1.5 system-ui, sans-serif; margin: 0 }
main { margin: 0 auto; max-width: 64rem; padding: 1rem }
header { border-bottom: 3px solid var(--accent); margin-bottom: 1rem; padding: .5rem 0 1rem }
h1 { color: var(--accent); font-size: 1.7rem; line-height: 1.2; margin: 0 }
h2 { font-size: 1rem; margin: 0 0 .6rem }
header p { color: #5a6770; margin: .2rem 0 0 }
section { background: #fff; border: 1px solid #e0e5e8; border-radius: 8px; margin: 0 0 1rem;
  padding: 1rem }
.tiles { display: grid; gap: 1rem; grid-template-columns: repeat(3, 1fr); margin-bottom: 1rem }
@media (max-width: 40rem) { .tiles { grid-template-columns: repeat(2, 1fr) } }
.tiles section { margin: 0 }
.tiles h2 { color: #5a6770; font-size: .85rem; font-weight: 500; margin: 0 }
.tiles strong { display: block; font-size: 1.45rem; line-height: 1.3; white-space: nowrap }
.tiles small { color: #5a6770 }
.good::before, .bad::before, .neutral::before { font-weight: 700; margin-right: .4rem }
.good::before { color: #1f7a4d; content: "▲" }
.bad::before { color: #b3402a; content: "▼" }
.neutral::before { color: #5a6770; content: "•" }
li { list-style: none; margin: 0 0 .5rem }
ul { margin: 0; padding: 0 }
details { color: #5a6770; font-size: .8rem; overflow-wrap: anywhere }
.pair { display: grid; gap: 0 1rem; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)) }
svg { height: auto; max-width: 100%; overflow: visible; width: 100% }
.table { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }
th, td { border-bottom: 1px solid #e0e5e8; padding: .35rem .6rem; text-align: right }
th:first-child, td:first-child { text-align: left }
th { color: #5a6770; font-size: .85rem; font-weight: 500 }
footer { color: #5a6770; font-size: .85rem; padding: 0 0 2rem }
@media print { body { background: #fff } section { break-inside: avoid } }
"""


def page(report: Layout, language: Language) -> str:
    """The whole page, as HTML."""
    parts = []
    for half, blocks in groupby(report.blocks, lambda block: getattr(block, "half", False)):
        rendered = "".join(map(_block, blocks))
        parts.append(f'<div class="pair">{rendered}</div>' if half else rendered)
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}, {escape(report.period)}</title>"
        f"<style>{_STYLE}:root {{ --accent: {escape(report.colour)} }}</style></head><body><main>"
        f"<header><h1>{escape(report.title)}</h1><p>{escape(report.period)}, "
        f"{escape(report.compared)}</p></header>{''.join(parts)}"
        f"<footer>{escape(report.made)}</footer></main></body></html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Tiles():
            return f'<div class="tiles">{"".join(map(_tile, block.tiles))}</div>'
        case Said():
            return f"<section><h2>{escape(block.title)}</h2>{_said(block)}</section>"
        case Chart():
            return f"<section><h2>{escape(block.title)}</h2>{_svg(block)}</section>"
        case Rows():
            return f"<section><h2>{escape(block.title)}</h2>{_rows(block)}</section>"


def _tile(tile: Tile) -> str:
    nbsp = "\xa0"
    tone = {True: ' class="good"', False: ' class="bad"', None: ""}[tile.better]
    return (
        f"<section><h2>{escape(tile.name)}</h2><strong>{escape(tile.value)}</strong>"
        f"<small{tone}>{escape(tile.note.replace(' ', nbsp))}</small></section>"
    )


def _said(block: Said) -> str:
    if not block.sentences:
        return f"<p>{escape(block.none)}</p>"
    items = (
        f'<li class="{tone}">{escape(text)}<details><summary>{escape(block.rests_on)}</summary>'
        f"{escape(rests_on)}</details></li>"
        for tone, text, rests_on in block.sentences
    )
    return f"<ul>{''.join(items)}</ul>"


def _rows(block: Rows) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in block.header)
    rows = (
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in block.rows
    )
    return f'<div class="table"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _svg(chart: Chart) -> str:
    drawn = svg(chart.drawing)
    label = escape(f"{chart.title}. {chart.told}".strip(), quote=True)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def svg(drawing: Drawing) -> str:
    """A drawing as an SVG element, to stand inside a page."""
    text: str = renderSVG.drawToString(drawing)
    element = text[text.index("<svg") :]
    # Descriptions and coordinates of the library's own; the page scales it.
    return element.strip()
