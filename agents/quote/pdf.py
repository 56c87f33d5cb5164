"""A quote as the document that the business sends; pure: the same quote, the same bytes.

Keeps secret the page: letterhead, both parties, items with their prices, total with the part
that is tax, validity, terms, and "page x of y" on each.
"""

import datetime as dt
from decimal import Decimal
from io import BytesIO
from typing import Any, Final
from zoneinfo import ZoneInfo

import phonenumbers
from babel.dates import format_date
from babel.numbers import format_currency, format_decimal, format_percent
from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
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

from agents.business import Business
from agents.catalogue import Language
from agents.numbered import numbered
from agents.quote.letters import draw, marked_up, plain
from agents.quotes import Quote

MARGIN: Final = 18 * mm
WIDTH: Final = A4[0] - 2 * MARGIN
LETTERHEAD: Final = 30 * mm
FOOT: Final = 16 * mm
# Of the columns of the items: number, description, area, price per m², amount.
COLUMNS: Final = (8 * mm, WIDTH - 92 * mm, 27 * mm, 26 * mm, 31 * mm)
GREY: Final = colors.HexColor("#5f6b73")
LINE: Final = colors.HexColor("#d5dbdf")
BAND: Final = colors.HexColor("#f3f6f7")

_LOCALES: Final = {"es": "es_UY", "en": "en_US"}
_WORDS: Final[dict[Language, dict[str, str]]] = {
    "es": {
        "quote": "Cotización",
        "date": "Fecha",
        "valid": "Válida hasta",
        "replaces": "Reemplaza a la versión {version}",
        "from": "De",
        "for": "Para",
        "no_name": "Cliente",
        "item": "Detalle",
        "area": "Superficie",
        "unit": "Precio por m²",
        "amount": "Importe",
        "net": "Subtotal sin IVA",
        "tax": "IVA {rate}",
        "total": "Total con IVA",
        "terms": "Condiciones",
        "page": "Página {page} de {pages}",
        "continued": "Cotización {code}",
    },
    "en": {
        "quote": "Quote",
        "date": "Date",
        "valid": "Valid until",
        "replaces": "Replaces version {version}",
        "from": "From",
        "for": "For",
        "no_name": "Customer",
        "item": "Description",
        "area": "Area",
        "unit": "Price per m²",
        "amount": "Amount",
        "net": "Subtotal without tax",
        "tax": "Tax {rate}",
        "total": "Total, tax included",
        "terms": "Terms",
        "page": "Page {page} of {pages}",
        "continued": "Quote {code}",
    },
}


def quote_pdf(quote: Quote, business: Business) -> bytes:
    """The PDF of a quote, in its customer's language, on as many A4 pages as it takes."""
    return _Document(quote, business).bytes()


class _Document:
    def __init__(self, quote: Quote, business: Business) -> None:
        self.quote = quote
        self.business = business
        self.words = _WORDS[quote.language]
        self.locale = _LOCALES[quote.language]
        self.accent = colors.HexColor(business.colour)
        base = ParagraphStyle("base", fontName="Helvetica", fontSize=9, leading=12.5)
        self.text = base
        self.bold = ParagraphStyle("bold", base, fontName="Helvetica-Bold")
        self.small = ParagraphStyle("small", base, fontSize=8, leading=11, textColor=GREY)
        self.label = ParagraphStyle(
            "label", base, fontName="Helvetica-Bold", fontSize=7.5, textColor=self.accent
        )
        self.right = ParagraphStyle("right", base, alignment=TA_RIGHT)
        self.head = ParagraphStyle("head", self.label, textColor=colors.white)
        self.head_right = ParagraphStyle("head_right", self.head, alignment=TA_RIGHT)

    def bytes(self) -> bytes:
        written = BytesIO()
        document = BaseDocTemplate(
            written,
            pagesize=A4,
            title=f"{self.words['quote']} {self.quote.code}",
            author=plain(self.business.legal_name),
            subject=plain(self.quote.description[:200]),
            lang=self.quote.language,
            invariant=1,
        )
        frame = Frame(
            MARGIN,
            FOOT + 6 * mm,
            WIDTH,
            A4[1] - LETTERHEAD - FOOT - 12 * mm,
            leftPadding=0,
            rightPadding=0,
            topPadding=0,
            bottomPadding=0,
        )
        document.addPageTemplates([PageTemplate(frames=[frame], onPage=self._letterhead)])
        document.build(self._story(), canvasmaker=numbered(self._page_number))
        return written.getvalue()

    # -- what is on every page ---------------------------------------------------------

    def _letterhead(self, canvas: Canvas, document: Any) -> None:
        business, top = self.business, A4[1] - 12 * mm
        left = MARGIN
        if business.logo is not None:
            image = ImageReader(BytesIO(business.logo))
            wide, high = image.getSize()
            height = 15 * mm
            width = min(height * wide / high, 50 * mm)
            canvas.drawImage(
                image, left, top - height, width, height, mask="auto", preserveAspectRatio=True
            )
            left += width + 4 * mm
        canvas.setFillColor(self.accent)
        draw(canvas, left, top - 7 * mm, business.name, "Helvetica-Bold", 17, most=75 * mm)
        canvas.setFillColor(GREY)
        contact = [business.phone, business.email]
        contact += [business.website] if business.website else []
        line = "  ·  ".join(contact)
        draw(canvas, left, top - 12.5 * mm, line, "Helvetica", 8, most=105 * mm)
        right = A4[0] - MARGIN
        canvas.setFillColor(self.accent)
        canvas.setFont("Helvetica-Bold", 13)
        canvas.drawRightString(right, top - 6 * mm, self.words["quote"])
        canvas.setFillColor(colors.black)
        canvas.setFont("Helvetica", 11)
        canvas.drawRightString(right, top - 12 * mm, self.quote.code)
        canvas.setStrokeColor(self.accent)
        canvas.setLineWidth(1.2)
        canvas.line(MARGIN, A4[1] - LETTERHEAD, right, A4[1] - LETTERHEAD)

    def _page_number(self, canvas: Canvas, page: int, pages: int) -> None:
        business, right = self.business, A4[0] - MARGIN
        canvas.setStrokeColor(LINE)
        canvas.setLineWidth(0.6)
        canvas.line(MARGIN, FOOT, right, FOOT)
        canvas.setFillColor(GREY)
        told = f"{business.legal_name}  ·  {business.tax_id}"
        draw(canvas, MARGIN, FOOT - 5 * mm, told, "Helvetica", 7.5, most=120 * mm)
        canvas.setFont("Helvetica", 7.5)
        number = self.words["page"].format(page=page, pages=pages)
        canvas.drawRightString(right, FOOT - 5 * mm, number)

    # -- what flows over the pages -----------------------------------------------------

    def _story(self) -> list[Flowable]:
        story = [self._parties(), Spacer(1, 6 * mm), self._items(), Spacer(1, 4 * mm)]
        # Never a total alone on a page without what it stands for.
        closing: list[Flowable] = [self._totals()]
        terms = getattr(self.business.terms, self.quote.language)
        if terms:
            closing += [Spacer(1, 7 * mm), self._paragraph(self.words["terms"], self.label)]
            closing += [self._paragraph(f"• {each}", self.small) for each in terms]
        story.append(KeepTogether(closing))
        return story

    def _parties(self) -> Table:
        quote, business = self.quote, self.business
        ours = [self._paragraph(self.words["from"], self.label)]
        ours.append(self._paragraph(business.legal_name, self.bold))
        ours += [self._paragraph(line, self.text) for line in (business.tax_id, *business.address)]
        theirs = [self._paragraph(self.words["for"], self.label)]
        name = quote.customer_name or self.words["no_name"]
        theirs.append(self._paragraph(name, self.bold))
        if quote.customer_phone:
            theirs.append(self._paragraph(_spaced(quote.customer_phone), self.text))
        facts = [
            self._paragraph(self.words["date"], self.label),
            self._paragraph(self._date(quote.created_at), self.text),
            self._paragraph(self.words["valid"], self.label),
            self._paragraph(self._date(quote.valid_until), self.bold),
        ]
        if quote.version > 1:
            told = self.words["replaces"].format(version=quote.version - 1)
            facts.append(self._paragraph(told, self.small))
        table = Table([[ours, theirs, facts]], colWidths=[WIDTH * 0.38, WIDTH * 0.36, WIDTH * 0.26])
        table.setStyle(
            TableStyle(
                [
                    ("VALIGN", (0, 0), (-1, -1), "TOP"),
                    ("LEFTPADDING", (0, 0), (0, 0), 0),
                    ("TOPPADDING", (0, 0), (-1, -1), 0),
                ]
            )
        )
        return table

    def _items(self) -> Table:
        words = self.words
        rows: list[list[Flowable]] = [
            [
                self._paragraph("#", self.head),
                self._paragraph(words["item"], self.head),
                *(
                    self._paragraph(words[name], self.head_right)
                    for name in ("area", "unit", "amount")
                ),
            ]
        ]
        for number, item in enumerate(self.quote.items, 1):
            rows.append(
                [
                    self._paragraph(str(number), self.small),
                    # "gotero × 2" stays on one line.
                    self._paragraph(item["description"].replace(" × ", "\u00a0×\u00a0"), self.text),
                    self._paragraph(f"{self._number(item['area_m2'])}\u00a0m²", self.right),
                    self._paragraph(self._unit_price(item["unit_price_per_m2"]), self.right),
                    self._paragraph(self._money(Decimal(item["total"])), self.right),
                ]
            )
        table = Table(rows, colWidths=COLUMNS, repeatRows=1)
        table.setStyle(
            TableStyle(
                [
                    ("BACKGROUND", (0, 0), (-1, 0), self.accent),
                    ("VALIGN", (0, 0), (-1, -1), "TOP"),
                    ("LINEBELOW", (0, 1), (-1, -1), 0.5, LINE),
                    ("ROWBACKGROUNDS", (0, 1), (-1, -1), [colors.white, BAND]),
                    ("TOPPADDING", (0, 0), (-1, -1), 4),
                    ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
                    ("LEFTPADDING", (0, 0), (-1, -1), 4),
                    ("RIGHTPADDING", (0, 0), (-1, -1), 4),
                ]
            )
        )
        return table

    def _totals(self) -> Table:
        quote, words = self.quote, self.words
        rate = format_percent(quote.tax_rate, "#,##0.##%", locale=self.locale)
        total = ParagraphStyle(
            "total", self.right, fontName="Helvetica-Bold", fontSize=12, textColor=self.accent
        )
        rows = [
            (words["net"], self._money(quote.total - quote.tax), self.right),
            (words["tax"].format(rate=rate), self._money(quote.tax), self.right),
            (words["total"], self._money(quote.total), total),
        ]
        table = Table(
            [[self._paragraph(name, style), self._paragraph(value, style)]
             for name, value, style in rows],
            colWidths=[WIDTH - 45 * mm, 45 * mm],
        )  # fmt: skip
        table.setStyle(
            TableStyle(
                [
                    ("VALIGN", (0, 0), (-1, -1), "BOTTOM"),
                    ("TOPPADDING", (0, 0), (-1, -1), 2),
                    ("RIGHTPADDING", (0, 0), (-1, -1), 4),
                    ("LINEABOVE", (1, 2), (1, 2), 0.8, self.accent),
                    ("TOPPADDING", (0, 2), (-1, 2), 5),
                ]
            )
        )
        return table

    # -- words and numbers -------------------------------------------------------------

    def _paragraph(self, words: str, style: ParagraphStyle) -> Paragraph:
        # What customers wrote is text, never reportlab's markup; splitLongWords breaks a name
        # that is wider than its column.
        return Paragraph(marked_up(words, style.fontName), style)

    def _date(self, moment: dt.datetime) -> str:
        day = moment.astimezone(ZoneInfo(self.business.timezone)).date()
        shown: str = format_date(day, format="long", locale=self.locale)
        return shown

    def _number(self, digits: str) -> str:
        shown: str = format_decimal(Decimal(digits), locale=self.locale, decimal_quantization=False)
        return shown

    def _unit_price(self, digits: str) -> str:
        """Never fewer than two decimals, and all that there are: the amount follows from it."""
        price = Decimal(digits)
        exact = len(digits.partition(".")[2])
        return self._money(price, decimals=max(2, min(exact, 6)))

    def _money(self, amount: Decimal, decimals: int = 2) -> str:
        pattern = ("¤\u00a0#,##0." if self.quote.language == "es" else "¤¤\u00a0#,##0.") + (
            "0" * decimals
        )
        shown: str = format_currency(
            amount, self.quote.currency, pattern, locale=self.locale, currency_digits=False
        )
        return shown


def _spaced(phone: str) -> str:
    """A phone number as people read it, where it is one."""
    try:
        number = phonenumbers.parse(phone)
    except phonenumbers.NumberParseException:
        return phone
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
