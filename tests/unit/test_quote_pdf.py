"""A quote as a document: all that a customer must read is in it, on however many pages."""

import datetime as dt
import re
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader

from agents.business import Business, BusinessInvalid, load_business
from agents.catalogue import Language, load_catalogue
from agents.quote.pdf import quote_pdf
from agents.quote.pricing import PriceRequest, price_quote
from agents.quote.wording import describe_item, name_products
from agents.quotes import Quote, QuoteState

CATALOGUE = load_catalogue()
NOW = dt.datetime(2026, 11, 24, 19, 0, tzinfo=dt.UTC)


def quote(*asked: PriceRequest, language: Language = "es", **fields: Any) -> Quote:
    priced = price_quote(CATALOGUE, asked)
    items = [item.to_document() for item in priced.items]
    words = [describe_item(item, CATALOGUE, language) for item in items]
    known: dict[str, Any] = {
        "id": "q",
        "code": "COT-2026-000123",
        "number": "COT-2026-000123",
        "version": 1,
        "supersedes": None,
        "superseded_by": None,
        "state": QuoteState.SENT,
        "revision": 0,
        "edition": 1,
        "session": None,
        "customer_name": "Juan Pérez",
        "customer_phone": "+59899123456",
        "language": language,
        "product": name_products(items, CATALOGUE, language),
        "description": "; ".join(words),
        "items": tuple(
            item | {"description": said} for item, said in zip(items, words, strict=True)
        ),
        "total": priced.total,
        "tax": priced.tax,
        "tax_rate": priced.tax_rate,
        "currency": priced.currency,
        "catalogue_version": 1,
        "created_at": NOW,
        "valid_until": NOW + dt.timedelta(days=15),
        "state_at": NOW,
    }
    return Quote(**known | fields)


def isodec(**fields: Any) -> PriceRequest:
    sides = {"length_m": Decimal(10), "width_m": Decimal(5)}
    return PriceRequest("isodec", 100, **sides | fields)


def pages(made: Quote, business: Business | None = None) -> list[str]:
    reader = PdfReader(BytesIO(quote_pdf(made, business or load_business())))
    return [page.extract_text().replace("\u00a0", " ") for page in reader.pages]


def test_a_quote_of_one_item_is_a_page_with_all_that_counts() -> None:
    (page,) = pages(quote(isodec(colour="gris")))
    for told in (
        "Panelia Aislantes S.A.",
        "RUT 21 000000 0010",
        "COT-2026-000123",
        "Juan Pérez",
        "+598 99 123 456",
        "24 de noviembre de 2026",
        "9 de diciembre de 2026",
        "Isodec 100 mm, 10 × 5 m, gris",
        "50 m²",
        "$ 157,50",
        "$ 7.875,00",
        "IVA 22%",
        "$ 1.420,08",
        "$ 6.454,92",
        "Página 1 de 1",
    ):
        assert told in page, told


def test_sixty_items_go_over_pages_that_each_say_which_they_are() -> None:
    asked = [isodec(length_m=Decimal(n + 1), freight=bool(n % 3)) for n in range(60)]
    made = quote(*asked, language="en", code="COT-2026-000123-2", version=2)
    found = pages(made)
    assert len(found) > 1
    for number, page in enumerate(found, 1):
        assert f"Page {number} of {len(found)}" in page
        assert "COT-2026-000123-2" in page
        assert "Price per m²" in page or "Total, tax included" in page
    text = "\n".join(found)
    for n in range(60):
        assert re.search(rf"100 mm, {n + 1} × 5 m", text)
    assert f"UYU {made.total:,.2f}" in found[-1]
    assert "Replaces version 1" in found[0]


def test_a_long_name_and_markup_are_text_and_hide_nothing() -> None:
    name = "Construcciones <b>& Montajes</b> " + "Supercalifragilistico" * 8 + " 😀"
    (page,) = pages(quote(isodec(), customer_name=name))
    assert "<b>& Montajes</b>" in page
    assert "".join(page.split()).count("Supercalifragilistico") == 8
    assert "$ 7.500,00" in page


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Иван Петров", "Иван Петров"),
        ("Ελένη Łukasz Şahin", "Ελένη Łukasz Şahin"),
        ("Արամ & <b>Սոնա</b>", "Արամ & <b>Սոնա</b>"),
        ("Jose\u0301 Ñandú", "José Ñandú"),
        ("Ana 😀 Gómez ❤️", "Ana"),
        ("王小明 Li", "??? Li"),
    ],
)
def test_names_in_other_letters_are_drawn(name: str, told: str) -> None:
    (page,) = pages(quote(isodec(), customer_name=name))
    assert told in page
    assert "?" not in page.replace("???", "")
    assert "\ufffd" not in page


def test_a_business_may_write_in_other_letters(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: Крыши и Ко\nlegal_name: ООО Крыши\ntax_id: RUT 1\n"
        "address: [ул. Мира 1]\nphone: '1'\nemail: a@b.example\n"
    )
    (page,) = pages(quote(isodec()), load_business(file))
    for told in ("Крыши и Ко", "ООО Крыши", "ул. Мира 1"):
        assert told in page


def test_the_same_quote_has_the_same_bytes() -> None:
    made = quote(isodec(), customer_name="Иван")
    assert quote_pdf(made, load_business()) == quote_pdf(made, load_business())


def test_a_business_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: Techos del Este\nlegal_name: Techos del Este SRL\ntax_id: RUT 1\n"
        "address: [Calle 1]\nphone: '1'\nemail: a@b.example\n"
    )
    (page,) = pages(quote(isodec()), load_business(file))
    assert "Techos del Este SRL" in page
    assert "Panelia" not in page


def test_a_business_that_is_wrong_is_refused_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: A\nlegal_name: A\ntax_id: ''\naddress: [B]\nphone: '1'\nlogo: none.png\n"
        "colour: red\ntimezone: Nowhere/Town\nslogan: x\n"
    )
    with pytest.raises(BusinessInvalid) as invalid:
        load_business(file)
    told = "\n".join(invalid.value.faults)
    for place in ("3: tax_id", "6: logo", "7: colour", "8: timezone", "9: slogan", "1: email"):
        assert f"mine.yaml:{place}" in told, told
