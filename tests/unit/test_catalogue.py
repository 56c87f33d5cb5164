"""The data file is read exactly, its faults are all named, and documents lose nothing."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.catalogue import (
    Catalogue,
    CatalogueInvalid,
    FieldChange,
    changes,
    load_catalogue,
    names_of,
    parse_catalogue,
    plain,
)

SHIPPED = load_catalogue()

SMALL = """\
currency: UYU
tax_rate: 0.22
quote_validity_days: 15
max_side_m: 1000
max_finish_sides: 4
thickness_factors:
  50: 0.8
  100: 1.0
colours:
  - id: blanco
    name: {es: blanco, en: white}
    factor: 1.00
    default: true
  - id: gris
    name: {es: gris, en: grey}
    factor: 1.05
finishes: []
anchors: {included: 1, not_included: 0.95, default: included}
freight: {included: 1, not_included: 0.90, default: not_included}
topics:
  - id: fire
    name: {es: fuego, en: fire}
products:
  - id: isodec
    name: {es: Isodec, en: Isodec}
    aliases: [isodac]
    thicknesses_mm: [50, 100]
    base_price_per_m2: 150
    description: {es: Panel., en: Panel.}
    facts:
      fire: {es: Autoextinguible., en: Self-extinguishing.}
"""


def faults_of(text: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(CatalogueInvalid) as invalid:
        parse_catalogue(text, source="own.yaml")
    return [(fault.line, fault.field, fault.problem) for fault in invalid.value.faults]


# --- The shipped one ----------------------------------------------------------------------


def test_the_shipped_catalogue_is_the_sample_business() -> None:
    assert SHIPPED.currency == "UYU"
    assert SHIPPED.tax_rate == Decimal("0.22")
    assert SHIPPED.quote_validity_days == 15
    assert SHIPPED.max_side_m == 1000
    assert SHIPPED.max_finish_sides == 4
    assert {product.id: str(product.base_price_per_m2) for product in SHIPPED.products} == {
        "isodec": "150",
        "poliestireno": "120",
        "lana_roca": "140",
    }
    assert SHIPPED.default_colour.id == "blanco"
    assert SHIPPED.version == 0


@pytest.mark.parametrize(
    ("product", "names"),
    [
        ("isodec", ["Isodec", "isodac", "isodak", "iso dec", "ISO-DEC", "panel isodec"]),
        (
            "poliestireno",
            ["Poliestireno (expandido)", "EPS", "espuma plast", "telgopor", "polystyrene"],
        ),
        ("lana_roca", ["lana de roca", "Lana Roca", "lana_roca", "rock wool"]),
    ],
)
def test_products_are_found_by_the_names_that_customers_use(product: str, names: list[str]) -> None:
    for name in names:
        found = SHIPPED.product(name)
        assert found is not None, name
        assert found.id == product


def test_colours_finishes_and_topics_are_found_by_name() -> None:
    assert [SHIPPED.colour(name) for name in ("Blanca", "gray", "otro color")] == list(
        SHIPPED.colours
    )
    assert [SHIPPED.finish(name) for name in ("con gotero", "HORMIGÓN")] == list(SHIPPED.finishes)
    topic = SHIPPED.topic("¿se quema?")
    assert topic is not None
    assert topic.id == "fire"
    assert SHIPPED.product("chapa") is None
    assert SHIPPED.colour("") is None
    assert SHIPPED.finish("?") is None


def test_every_product_says_something_on_the_main_topics_in_both_languages() -> None:
    for product in SHIPPED.products:
        for topic in ("uses", "insulation", "fire", "water", "installation"):
            text = product.fact(topic)
            assert text is not None
            assert text.in_language("es") != text.in_language("en")
    assert SHIPPED.products[0].fact("sound") is None


def test_prices_do_not_pass_through_floats() -> None:
    text = SMALL.replace("base_price_per_m2: 150", "base_price_per_m2: 1000000.000000001")
    assert str(parse_catalogue(text, "own").products[0].base_price_per_m2) == "1000000.000000001"


def test_words_that_yaml_would_take_for_something_else_stay_words() -> None:
    text = SMALL.replace("[isodac]", "[no, 1e3, 2026-01-01, null]")
    assert parse_catalogue(text, "own").products[0].aliases == ("no", "1e3", "2026-01-01", "null")


# --- What is wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "problem"),
    [
        ("currency: UYU\n", "", 1, "currency", "is missing"),
        ("currency: UYU", "currency: pesos", 1, "currency", "three capitals .* 'pesos'"),
        ("currency: UYU", "currency: UYU\ncolor: x", 2, "color", "not a known key"),
        ("tax_rate: 0.22", "tax_rate: 22", 2, "tax_rate", "at most 1, is 22"),
        ("tax_rate: 0.22", "tax_rate: 22 %", 2, "tax_rate", "a number such as 1.05, is '22 %'"),
        ("tax_rate: 0.22", "tax_rate: 0,22", 2, "tax_rate", "a number such as 1.05, is '0,22'"),
        ("tax_rate: 0.22", "tax_rate: [1]", 2, "tax_rate", "must be a number"),
        ("tax_rate: 0.22", "tax_rate: 0.0000000001", 2, "tax_rate", "at most 9 decimals"),
        ("days: 15", "days: 1.5", 3, "quote_validity_days", "whole number"),
        ("max_side_m: 1000", "max_side_m: 0", 4, "max_side_m", "more than 0, is 0"),
        ("  50: 0.8\n", "", 26, "products[0].thicknesses_mm", "50 mm has no thickness factor"),
        ("50: 0.8", "50: -0.8", 7, "thickness_factors.50", "more than 0, is -0.8"),
        ("50: 0.8", "50: 0.8\n  5cm: 1", 8, "thickness_factors.5cm", "a thickness in mm"),
        ("50: 0.8", "50: 0.8\n  50: 0.9", 7, "thickness_factors.50", "twice, again on line 8"),
        ("    default: true\n", "", 9, "colours", "one colour must have `default: true`"),
        ("factor: 1.05", "factor: 1.05\n    default: true", 17, "colours[1].default", "already"),
        ("default: true", "default: yes", 13, "colours[0].default", "must be true or false"),
        ("en: grey", "en: Whíte", 15, "colours[1].name.en", "'Whíte' is already a name of blanco"),
        ("es: gris, ", "", 15, "colours[1].name.es", "is missing"),
        ("finishes: []", "finishes: none", 17, "finishes", "must be a list"),
        ("default: included", "default: yes", 18, "anchors.default", "included or not_included"),
        ("id: gris", "id: Gris!", 14, "colours[1].id", "small letters"),
        (
            "aliases: [isodac]",
            "aliases: [a, Á]",
            26,
            "products[0].aliases[1]",
            "'Á' is listed twice",
        ),
        (
            "aliases: [isodac]",
            "aliases: ['?!']",
            26,
            "products[0].aliases[0]",
            "no letter or digit",
        ),
        ("aliases: [isodac]", "alias: [isodac]", 26, "products[0].alias", "not a known key"),
        ("[50, 100]", "[]", 27, "products[0].thicknesses_mm", "at least one entry"),
        ("[50, 100]", "[50, 50]", 27, "products[0].thicknesses_mm[1]", "50 is listed twice"),
        ("[50, 100]", "[50, 0]", 27, "products[0].thicknesses_mm[1]", "from 1 to 10000, is 0"),
        ("m2: 150", "m2: 0", 28, "products[0].base_price_per_m2", "more than 0, is 0"),
        ("m2: 150", "m2:", 28, "products[0].base_price_per_m2", "a number such as 1.05, is ''"),
        ("m2: 150", "m2: 1e5", 28, "products[0].base_price_per_m2", "number such as"),
        ("m2: 150", "m2: 2000000000", 28, "products[0].base_price_per_m2", "at most 1000000000"),
        ("{es: Panel., en", "{es: '', en", 29, "products[0].description.es", "is empty"),
        (
            "      fire: {es",
            "      rust: {es",
            31,
            "products[0].facts.rust",
            "not one of the topics",
        ),
        ("  - id: isodec", "  - isodec\n  - id: isodec", 24, "products[0]", "must be a mapping"),
    ],
)
def test_a_fault_is_named_with_its_line_and_field(
    old: str, new: str, line: int, field: str, problem: str
) -> None:
    assert old in SMALL
    faults = faults_of(SMALL.replace(old, new, 1))
    assert len(faults) == 1, faults
    assert faults[0][:2] == (line, field)
    assert re.search(problem, faults[0][2]), faults[0][2]


def test_all_faults_are_found_not_only_the_first() -> None:
    text = (
        SMALL.replace("tax_rate: 0.22", "tax_rate: much")
        .replace("  100: 1.0\n", "")
        .replace("factor: 1.05", "factor: 0\n    colour: grey")
        .replace("m2: 150", "m2: -1")
    )
    text += text[text.index("  - id: isodec") :].replace("m2: -1", "m2: 3")
    assert [(line, field) for line, field, _ in faults_of(text)] == [
        (2, "tax_rate"),
        (15, "colours[1].factor"),
        (16, "colours[1].colour"),
        (27, "products[0].thicknesses_mm"),
        (28, "products[0].base_price_per_m2"),
        (32, "products[1].id"),
        (33, "products[1].name.es"),
        (33, "products[1].name.en"),
        (34, "products[1].aliases[0]"),
        (35, "products[1].thicknesses_mm"),
    ]


def test_the_message_is_a_line_for_each_fault_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(SMALL.replace("m2: 150", "m2: 0").replace("0.22", "-1"), encoding="utf-8")
    with pytest.raises(CatalogueInvalid) as invalid:
        load_catalogue(path)
    assert str(invalid.value) == (
        "ours.yaml:2: tax_rate: must be at least 0, is -1\n"
        "ours.yaml:28: products[0].base_price_per_m2: must be more than 0, is 0"
    )


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", None, "must be a mapping"),
        ("just words", 1, "must be a mapping"),
        ("currency: UYU\n  tax: 1\n", 2, "is not YAML"),
        ("currency: [UYU\n", 2, "is not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "is not YAML"),
        ("\x00", None, "is not YAML"),
    ],
)
def test_what_is_no_catalogue_at_all_is_one_fault(
    text: str, line: int | None, problem: str
) -> None:
    faults = faults_of(text)
    assert len(faults) == 1
    assert faults[0][0] == line
    assert problem in faults[0][2]


def test_bytes_that_are_no_utf8_are_a_fault() -> None:
    with pytest.raises(CatalogueInvalid, match="own: catalogue: is not YAML"):
        parse_catalogue(b"currency: \xff\xfe\xff", "own")


def test_aliases_of_yaml_and_endless_nesting_are_refused_without_harm() -> None:
    unfolding = "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert any("YAML alias" in problem for _, _, problem in faults_of(unfolding))
    itself = SMALL.replace("finishes: []", "finishes: &f [*f]")
    assert [fault[:2] for fault in faults_of(itself)] == [(17, "finishes[0]")]
    deep = SMALL.replace("finishes: []", f"finishes: {'[' * 200}{']' * 200}")
    assert (17, "is nested too deep") in [(line, problem) for line, _, problem in faults_of(deep)]


def test_an_unreadable_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_catalogue(tmp_path / "none.yaml")


# --- Documents ----------------------------------------------------------------------------


def test_a_document_gives_the_same_catalogue_again() -> None:
    document = json.loads(json.dumps(SHIPPED.to_document()))
    assert Catalogue.from_document(document) == SHIPPED
    assert Catalogue.from_document(document).to_document() == document


def test_json_with_exact_numbers_is_read_as_the_data_file_is() -> None:
    text = re.sub(r': "([0-9.]+)"', r": \1", json.dumps(SHIPPED.to_document()))
    assert '"factor": 1.05' in text
    assert Catalogue.from_document(json.loads(text, parse_float=Decimal)) == SHIPPED
    with pytest.raises(CatalogueInvalid, match=r"colours\[1\]\.factor: .* \(no float\)"):
        Catalogue.from_document(json.loads(text))


@pytest.mark.parametrize(
    "number",
    [True, Decimal("NaN"), Decimal("1E+999999"), Decimal("1E-999999"), 10**4000, "1" * 5000, None],
)
def test_strange_numbers_in_documents_are_faults(number: object) -> None:
    document = SHIPPED.to_document()
    document["products"][0]["base_price_per_m2"] = number
    with pytest.raises(CatalogueInvalid) as invalid:
        Catalogue.from_document(document, source="import")
    assert [(fault.line, fault.field) for fault in invalid.value.faults] == [
        (None, "products[0].base_price_per_m2")
    ]
    assert len(str(invalid.value)) < 200


def test_texts_that_cannot_be_stored_are_faults() -> None:
    document = SHIPPED.to_document()
    document["products"][0]["description"] = {"es": "\ud800", "en": "x" * 2001}
    with pytest.raises(CatalogueInvalid) as invalid:
        Catalogue.from_document(document)
    assert [(fault.field, fault.problem) for fault in invalid.value.faults] == [
        ("products[0].description.es", "has characters that no encoding can hold"),
        ("products[0].description.en", "is longer than 2000 characters"),
    ]


@pytest.mark.parametrize("document", [None, [], "x", 3, {1: 2}, {"products": {}}])
def test_what_is_no_document_of_a_catalogue_is_refused(document: object) -> None:
    with pytest.raises(CatalogueInvalid):
        Catalogue.from_document(document)


def test_equality_is_what_it_says_and_not_its_version() -> None:
    assert replace(SHIPPED, version=3) == SHIPPED
    assert hash(replace(SHIPPED, version=3)) == hash(SHIPPED)
    assert replace(SHIPPED, currency="USD") != SHIPPED


prices = st.decimals(min_value="0.000000001", max_value=1_000_000_000, places=9)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
sentences = texts.filter(lambda text: bool(text.strip()))
local_texts = st.fixed_dictionaries({"es": sentences, "en": sentences})


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Any catalogue that passes the checks, as a document."""

    def digits(numbers: st.SearchStrategy[Decimal] = prices) -> str:
        return format(draw(numbers), "f")

    def named(kind: str, at_least: int) -> list[dict[str, Any]]:
        return [
            {
                "id": f"{kind}_{number}",
                "name": {"es": f"{kind} Ñandú {number}", "en": f"{kind} {number} en"},
                "aliases": [f"{kind} {number} {word}" for word in draw(words)],
            }
            for number in range(draw(st.integers(at_least, 3)))
        ]

    words = st.lists(st.sampled_from(["a", "b", "ç", "漢"]), unique=True)
    thicknesses = draw(st.lists(st.integers(1, 10_000), min_size=1, max_size=4, unique=True))
    colours, topics = named("colour", 1), named("topic", 0)
    default = draw(st.sampled_from(colours))
    options = st.sampled_from(["included", "not_included"])
    return {
        "currency": draw(st.sampled_from(["UYU", "USD"])),
        "tax_rate": digits(st.decimals(min_value=0, max_value=1, places=9)),
        "quote_validity_days": draw(st.integers(1, 3650)),
        "max_side_m": digits(st.decimals(min_value="0.001", max_value=1_000_000, places=3)),
        "max_finish_sides": draw(st.integers(1, 100)),
        "thickness_factors": {str(each): digits() for each in sorted(thicknesses)},
        "colours": [{**each, "factor": digits(), "default": each is default} for each in colours],
        "finishes": [{**each, "added_per_side": digits()} for each in named("finish", 0)],
        **{
            option: {"included": digits(), "not_included": digits(), "default": draw(options)}
            for option in ("anchors", "freight")
        },
        "topics": topics,
        "products": [
            {
                **each,
                "thicknesses_mm": sorted(draw(st.sets(st.sampled_from(thicknesses), min_size=1))),
                "base_price_per_m2": digits(),
                "description": draw(local_texts),
                "facts": {topic["id"]: draw(local_texts) for topic in topics[: draw(counts)]},
            }
            for each in named("product", 1)
        ],
    }


counts = st.integers(0, 3)


@given(documents())
def test_any_document_round_trips(document: dict[str, Any]) -> None:
    catalogue = Catalogue.from_document(document)
    assert catalogue.to_document() == document
    for each in catalogue.products:
        assert all(catalogue.product(name) == each for name in names_of(each))


@given(documents(), documents())
def test_changes_are_empty_exactly_when_catalogues_are_equal(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    old, new = Catalogue.from_document(one), Catalogue.from_document(other)
    assert not changes(old, old)
    assert bool(changes(old, new)) == (old != new)


@given(st.text())
def test_plain_is_a_fixed_point_and_ignores_capitals_and_spaces(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert plain(f"  {text} !") == plain(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Lana   de ROCA. ", "lana de roca"),
        ("Hormigón", "hormigon"),
        ("lana_roca", "lana roca"),
        ("ISO-DEC", "iso dec"),
        ("ñandú", "nandu"),
        ("😀", ""),
    ],
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text) == expected


# --- Changes ------------------------------------------------------------------------------


def edited(edit: Callable[[dict[str, Any]], object]) -> Catalogue:
    document = SHIPPED.to_document()
    edit(document)
    return Catalogue.from_document(document)


def test_a_new_price_is_a_change_with_old_and_new() -> None:
    new = edited(lambda document: document["products"][0].update(base_price_per_m2="162.50"))
    report = changes(SHIPPED, new)
    assert report.fields == (
        FieldChange("products.isodec.base_price_per_m2", Decimal(150), Decimal("162.50")),
    )
    assert report.to_document() == {
        "products_added": [],
        "products_removed": [],
        "fields": [
            {"field": "products.isodec.base_price_per_m2", "old": "150", "new": "162.50"},
        ],
    }


def test_the_same_number_written_otherwise_is_no_change() -> None:
    assert not changes(
        SHIPPED, edited(lambda document: document["colours"][0].update(factor="1.000"))
    )


def test_products_that_come_and_go_are_named_and_not_listed_field_by_field() -> None:
    def edit(document: dict[str, Any]) -> None:
        del document["products"][1]
        document["products"].append(
            {
                "id": "chapa",
                "name": {"es": "Chapa", "en": "Sheet"},
                "thicknesses_mm": [25],
                "base_price_per_m2": "90",
                "description": {"es": "Chapa.", "en": "Sheet."},
            }
        )

    report = changes(SHIPPED, edited(edit))
    assert (report.products_added, report.products_removed) == (("chapa",), ("poliestireno",))
    assert report.fields == ()
    assert report


def test_changes_of_lists_factors_and_texts() -> None:
    def edit(document: dict[str, Any]) -> None:
        document["products"][2]["thicknesses_mm"] = [50, 75]
        document["products"][0]["aliases"] = []
        document["products"][0]["facts"]["fire"]["en"] = "It does not burn."
        document["thickness_factors"]["200"] = "1.5"
        document["finishes"].pop()
        document["freight"]["default"] = "not_included"
        document["currency"] = "USD"

    report = changes(SHIPPED, edited(edit))
    old_fire = SHIPPED.products[0].fact("fire")
    assert old_fire is not None
    assert {each.field: (each.old, each.new) for each in report.fields} == {
        "currency": ("UYU", "USD"),
        "thickness_factors.200.thickness_mm": (None, 200),
        "thickness_factors.200.factor": (None, Decimal("1.5")),
        "finishes.hormigon.id": ("hormigon", None),
        "finishes.hormigon.name.es": ("hormigón", None),
        "finishes.hormigon.name.en": ("concrete", None),
        "finishes.hormigon.aliases": (SHIPPED.finishes[1].aliases, None),
        "finishes.hormigon.added_per_side": (Decimal("0.10"), None),
        "freight.included_by_default": (True, False),
        "products.isodec.aliases": (SHIPPED.products[0].aliases, None),
        "products.isodec.facts.fire.text.en": (old_fire.en, "It does not burn."),
        "products.lana_roca.thicknesses_mm": ((50, 75, 100), (50, 75)),
    }


def test_another_order_is_a_change_too() -> None:
    report = changes(SHIPPED, edited(lambda document: document["products"].reverse()))
    assert report.fields == (
        FieldChange(
            "products.order",
            ("isodec", "poliestireno", "lana_roca"),
            ("lana_roca", "poliestireno", "isodec"),
        ),
    )
