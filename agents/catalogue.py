"""What the business sells: products, factors of the price, and what is known of them.

Keeps secret how a catalogue is written down (the data file, the MongoDB document, one
shape for both), how names that customers use are compared, and how a new version comes
into force for every process at once.

Collections (only `CatalogueStore` reads or writes them; nothing is ever deleted, since a
quote refers to the version it was priced by):

    name               document                                   written by
    catalogues         _id: int, the version, 1 and rising;       seed, publish;
                       source_key: str, unique: the import that   never changed
                       made it; published_at: UTC;
                       catalogue: Catalogue.to_document()
    catalogue_current  _id: "current"; version: int, only rises   seed, publish
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property, lru_cache
from math import prod
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar

import yaml
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

SHIPPED_CATALOGUE: Final = Path(__file__).with_name("catalogue.yaml")

Language = Literal["es", "en"]


# --- The values ---------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalText:
    """One text in each language that customers are answered in."""

    es: str
    en: str

    def in_language(self, language: Language) -> str:
        return self.en if language == "en" else self.es


@dataclass(frozen=True)
class Colour:
    """A colour and the factor it puts on the price; one colour is the default."""

    id: str
    name: LocalText
    aliases: tuple[str, ...]
    factor: Decimal
    default: bool


@dataclass(frozen=True)
class Finish:
    """A finish of a side; each side that has it adds `added_per_side` to a factor of 1."""

    id: str
    name: LocalText
    aliases: tuple[str, ...]
    added_per_side: Decimal


@dataclass(frozen=True)
class Option:
    """Something that a price includes or not, with the factor of either."""

    included: Decimal
    not_included: Decimal
    included_by_default: bool

    def factor(self, included: bool) -> Decimal:
        return self.included if included else self.not_included


@dataclass(frozen=True)
class ThicknessFactor:
    thickness_mm: int
    factor: Decimal


@dataclass(frozen=True)
class Topic:
    """Something that customers ask about a product, and the words they ask with."""

    id: str
    name: LocalText
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """What a product has to say on a topic, as whole sentences."""

    topic: str
    text: LocalText


@dataclass(frozen=True)
class Product:
    id: str
    name: LocalText
    aliases: tuple[str, ...]
    thicknesses_mm: tuple[int, ...]
    base_price_per_m2: Decimal
    description: LocalText
    facts: tuple[Fact, ...]

    def fact(self, topic: str) -> LocalText | None:
        return next((fact.text for fact in self.facts if fact.topic == topic), None)


@dataclass(frozen=True)
class Catalogue:
    """All that a business sells, as checked data; get one from `load_catalogue`,
    `from_document` or a `CatalogueStore`.

    Two catalogues are equal when they say the same; `version` does not count. It is 0
    until a store has given it one.
    """

    currency: str
    tax_rate: Decimal
    quote_validity_days: int
    max_side_m: Decimal
    max_finish_sides: int
    thickness_factors: tuple[ThicknessFactor, ...]
    colours: tuple[Colour, ...]
    finishes: tuple[Finish, ...]
    anchors: Option
    freight: Option
    topics: tuple[Topic, ...]
    products: tuple[Product, ...]
    version: int = field(default=0, compare=False)

    def product(self, name: str) -> Product | None:
        """The product with this id, name or alias (see `plain`); None if there is none."""
        return self._products.get(plain(name))

    def colour(self, name: str) -> Colour | None:
        return self._colours.get(plain(name))

    def finish(self, name: str) -> Finish | None:
        return self._finishes.get(plain(name))

    def topic(self, name: str) -> Topic | None:
        return self._topics.get(plain(name))

    def price_per_m2(
        self,
        product: Product,
        thickness_mm: int,
        *,
        colour: Colour,
        finishes: Iterable[Finish] = (),
        anchors: bool | None = None,
        freight: bool | None = None,
    ) -> Decimal:
        """Base price × all factors, tax included, not rounded; one finish for each side that
        has it, None for what is included by default."""
        options = ((self.anchors, anchors), (self.freight, freight))
        factors = [
            self.thickness_factor(thickness_mm),
            colour.factor,
            1 + sum((each.added_per_side for each in finishes), Decimal(0)),
            *(
                option.factor(option.included_by_default if wanted is None else wanted)
                for option, wanted in options
            ),
        ]
        return prod(factors, start=product.base_price_per_m2)

    def thickness_factor(self, thickness_mm: int) -> Decimal:
        """The factor of a thickness that some product is made in; KeyError for others."""
        return self._thickness_factors[thickness_mm]

    @cached_property
    def default_colour(self) -> Colour:
        return next(colour for colour in self.colours if colour.default)

    @cached_property
    def _products(self) -> dict[str, Product]:
        return _by_name(self.products)

    @cached_property
    def _colours(self) -> dict[str, Colour]:
        return _by_name(self.colours)

    @cached_property
    def _finishes(self) -> dict[str, Finish]:
        return _by_name(self.finishes)

    @cached_property
    def _topics(self) -> dict[str, Topic]:
        return _by_name(self.topics)

    @cached_property
    def _thickness_factors(self) -> dict[int, Decimal]:
        return {each.thickness_mm: each.factor for each in self.thickness_factors}

    def to_document(self) -> dict[str, Any]:
        """The catalogue in the shape of the data file, for BSON or JSON: numbers that are
        not whole are strings, so that no digit is lost; `version` is left out."""
        return {
            "currency": self.currency,
            "tax_rate": _digits(self.tax_rate),
            "quote_validity_days": self.quote_validity_days,
            "max_side_m": _digits(self.max_side_m),
            "max_finish_sides": self.max_finish_sides,
            "thickness_factors": {
                str(each.thickness_mm): _digits(each.factor) for each in self.thickness_factors
            },
            "colours": [
                {**_named_document(each), "factor": _digits(each.factor), "default": each.default}
                for each in self.colours
            ],
            "finishes": [
                {**_named_document(each), "added_per_side": _digits(each.added_per_side)}
                for each in self.finishes
            ],
            "anchors": _option_document(self.anchors),
            "freight": _option_document(self.freight),
            "topics": [_named_document(each) for each in self.topics],
            "products": [
                {
                    **_named_document(each),
                    "thicknesses_mm": list(each.thicknesses_mm),
                    "base_price_per_m2": _digits(each.base_price_per_m2),
                    "description": _text_document(each.description),
                    "facts": {fact.topic: _text_document(fact.text) for fact in each.facts},
                }
                for each in self.products
            ],
        }

    @staticmethod
    def from_document(document: object, source: str = "catalogue") -> "Catalogue":
        """The catalogue that a document in the shape of the data file describes.

        Numbers may be strings, ints or Decimals; a float is refused, since it no longer
        holds the digits that were written (read JSON with `parse_float=Decimal`).
        `source` names the document in errors.

        Raises:
            CatalogueInvalid: with everything that is wrong in it.
        """
        return _checked(document, _Faults(source))


class _Named(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> LocalText: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...


_N = TypeVar("_N", bound=_Named)


def plain(text: str) -> str:
    """A text as names are compared: no capitals, accents, punctuation or doubled spaces.

    Expects nothing and never fails; a text without letters or digits becomes "".
    """
    # Twice: what a compatibility form decomposes to may have capitals, and a capital folded
    # may have marks.
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text).casefold()
    bare = (char for char in text if not unicodedata.combining(char))
    return " ".join("".join(char if char.isalnum() else " " for char in bare).split())


def names_of(named: _Named) -> tuple[str, ...]:
    """Every name of a product, colour, finish or topic: its id first, then the shown
    names and the aliases, as written."""
    return (named.id, named.name.es, named.name.en, *named.aliases)


def _by_name(entries: Iterable[_N]) -> dict[str, _N]:
    return {plain(name): entry for entry in entries for name in names_of(entry)}


def _digits(number: Decimal) -> str:
    # str() would write small numbers with an exponent, which the data file does not have.
    return format(number, "f")


def _text_document(text: LocalText) -> dict[str, str]:
    return {"es": text.es, "en": text.en}


def _named_document(named: _Named) -> dict[str, Any]:
    return {
        "id": named.id,
        "name": _text_document(named.name),
        "aliases": list(named.aliases),
    }


def _option_document(option: Option) -> dict[str, str]:
    return {
        "included": _digits(option.included),
        "not_included": _digits(option.not_included),
        "default": "included" if option.included_by_default else "not_included",
    }


# --- Reading and checking -----------------------------------------------------------------


@dataclass(frozen=True)
class CatalogueFault:
    """One thing wrong in a catalogue. `line` counts from 1; None where there are no lines."""

    field: str
    line: int | None
    problem: str


class CatalogueInvalid(ValueError):
    """A catalogue cannot be used. Raised with every fault that it has, in reading order;
    as a string, one line for each: `source:line: field: problem`."""

    code = "catalogue_invalid"

    def __init__(self, source: str, faults: Sequence[CatalogueFault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        super().__init__("\n".join(self._line(fault) for fault in self.faults))

    def _line(self, fault: CatalogueFault) -> str:
        place = self.source if fault.line is None else f"{self.source}:{fault.line}"
        return f"{place}: {fault.field}: {fault.problem}"


def load_catalogue(path: Path = SHIPPED_CATALOGUE) -> Catalogue:
    """Read a catalogue from its data file (YAML; the shipped one says what it holds).

    Raises:
        CatalogueInvalid: with everything that is wrong in it, each with file, line, field.
        OSError: the file cannot be read.
    """
    return parse_catalogue(path.read_bytes(), source=path.name)


def parse_catalogue(text: str | bytes, source: str) -> Catalogue:
    """As `load_catalogue`, from the text of a data file; `source` names it in errors."""
    faults = _Faults(source)
    try:
        # BaseLoader leaves every scalar as the text that was written: prices do not pass
        # through floats, and an alias `no` stays a word.
        root = yaml.compose(text, Loader=yaml.CBaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            faults.lines[()] = mark.line + 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None)
        faults.note((), f"is not YAML: {problem or 'unreadable'}")
        raise CatalogueInvalid(source, list(faults.found)) from error
    return _checked(None if root is None else _tree(root, (), faults, set()), faults)


# A field's place: keys and list indexes from the root.
_Where = tuple[str | int, ...]


class _Faults:
    """What is wrong so far, and the lines to say it with."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[_Where, int] = {}
        # A dict, since a place that is looked at twice is not wrong twice.
        self.found: dict[CatalogueFault, None] = {}

    def note(self, where: _Where, problem: str) -> None:
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
        fault = CatalogueFault(name.lstrip(".") or "catalogue", self._line(where), problem)
        self.found.setdefault(fault)

    def _line(self, where: _Where) -> int | None:
        # What is missing has no line of its own: the nearest thing around it has.
        around = (where[:length] for length in range(len(where), -1, -1))
        return next((self.lines[place] for place in around if place in self.lines), None)


# What stands where something was wrong and has been noted.
_BROKEN: Final = object()
_MISSING: Final = object()


def _tree(node: yaml.Node, where: _Where, faults: _Faults, seen: set[int]) -> object:
    """Dicts, lists and strings of a YAML document, noting the line of each field."""
    faults.lines.setdefault(where, node.start_mark.line + 1)
    if id(node) in seen:
        # An alias may contain itself, or unfold into more than memory holds.
        faults.note(where, "is a YAML alias (*name): write it out")
        return _BROKEN
    seen.add(id(node))
    if len(where) > MAX_DEPTH:
        faults.note(where, "is nested too deep")
        return _BROKEN
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            place = (*where, key)
            if key in mapping:
                faults.note(
                    place, f"is written twice, again on line {key_node.start_mark.line + 1}"
                )
                continue
            faults.lines[place] = key_node.start_mark.line + 1
            mapping[key] = _tree(value_node, place, faults, seen)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_tree(each, (*where, index), faults, seen) for index, each in enumerate(node.value)]
    return str(node.value)


class _Field:
    """One place in a raw catalogue. Reads what should be there; where it is not, notes the
    fault once and goes on with a stand-in, which never leaves `_checked`."""

    def __init__(self, raw: object, where: _Where, faults: _Faults) -> None:
        self.raw = raw
        self._where = where
        self._faults = faults

    def fault(self, problem: str) -> None:
        self._faults.note(self._where, problem)

    def _is(self, kind: type | tuple[type, ...], described: str) -> bool:
        if isinstance(self.raw, kind) and not (isinstance(self.raw, bool) and kind is not bool):
            return True
        if self.raw is _MISSING:
            self.fault("is missing")
        elif self.raw is not _BROKEN:
            self.fault(f"must be {described}")
        return False

    def __getitem__(self, key: str) -> "_Field":
        if isinstance(self.raw, dict):
            return _Field(self.raw.get(key, _MISSING), (*self._where, key), self._faults)
        return _Field(_BROKEN, (*self._where, key), self._faults)

    def __contains__(self, key: str) -> bool:
        return isinstance(self.raw, dict) and key in self.raw

    def keys(self, known: Iterable[str] | None = None) -> list[str]:
        """The keys of a mapping; with `known`, the others are noted as faults."""
        if not self._is(dict, "a mapping (key: value)"):
            return []
        assert isinstance(self.raw, dict)
        for key in self.raw:
            if not isinstance(key, str) or (known is not None and key not in known):
                self._faults.note((*self._where, str(key)), "is not a known key")
        return [key for key in self.raw if isinstance(key, str)]

    def entries(self, at_least_one: bool = False) -> "list[_Field]":
        if not self._is(list, "a list"):
            return []
        assert isinstance(self.raw, list)
        if at_least_one and not self.raw:
            self.fault("needs at least one entry")
        return [
            _Field(raw, (*self._where, index), self._faults) for index, raw in enumerate(self.raw)
        ]

    def text(self) -> str:
        if not self._is(str, "a text"):
            return ""
        text = str(self.raw)
        if not text.strip():
            self.fault("is empty")
        elif len(text) > MAX_TEXT_CHARS:
            self.fault(f"is longer than {MAX_TEXT_CHARS} characters")
        elif _SURROGATE.search(text):
            self.fault("has characters that no encoding can hold")
        return text

    def match(self, pattern: re.Pattern[str], described: str) -> str:
        text = self.text()
        if text.strip() and not pattern.fullmatch(text):
            self.fault(f"must be {described}, is {_quoted(text)}")
            return ""
        return text

    def name(self) -> str:
        text = self.text()
        if text.strip() and not plain(text):
            self.fault(f"has no letter or digit: {_quoted(text)}")
        return text

    def local(self) -> LocalText:
        self.keys(known=("es", "en"))
        return LocalText(es=self["es"].text(), en=self["en"].text())

    def flag(self) -> bool:
        if self.raw in ("true", "false"):
            return self.raw == "true"
        return self._is(bool, "true or false") and bool(self.raw)

    def number(
        self,
        *,
        above: Decimal | None = None,
        at_least: Decimal | None = None,
        at_most: Decimal = Decimal(1_000_000_000),
    ) -> Decimal:
        """A number within bounds; 1 where there is none. The bounds on size and digits
        let a price be worked out exactly (see agents.quote.pricing)."""
        number = self._number()
        if number is None:
            return Decimal(1)
        if above is not None and number <= above:
            self.fault(f"must be more than {above}, is {_digits(number)}")
        elif at_least is not None and number < at_least:
            self.fault(f"must be at least {at_least}, is {_digits(number)}")
        elif number > at_most:
            self.fault(f"must be at most {at_most}, is {_digits(number)}")
        elif number != round(number, MAX_DECIMALS):
            self.fault(f"must have at most {MAX_DECIMALS} decimals, is {_digits(number)}")
        return number

    def _number(self) -> Decimal | None:
        if not self._is((str, int, Decimal), "a number, exactly as written (no float)"):
            return None
        if isinstance(self.raw, str):
            if _NUMBER.fullmatch(self.raw):
                return Decimal(self.raw)
            self.fault(f"must be a number such as 1.05, is {_quoted(self.raw)}")
            return None
        number = Decimal(self.raw)  # type: ignore[arg-type]
        if not number.is_finite() or not -20 < number.adjusted() < 20:
            self.fault("must be a number of ordinary size")
            return None
        return number

    def whole(self, at_most: int) -> int:
        """A whole number from 1; 0 where there is none."""
        number = self._number()
        if number is None:
            return 0
        if number != int(number) or not 1 <= number <= at_most:
            self.fault(f"must be a whole number from 1 to {at_most}, is {_digits(number)}")
            return 0
        return int(number)


MAX_DEPTH: Final = 8  # a sound one has 5: products, index, facts, topic, language
MAX_TEXT_CHARS: Final = 2000
MAX_DECIMALS: Final = 9
MAX_THICKNESS_MM: Final = 10_000
_ZERO: Final = Decimal(0)
_NUMBER: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")
_ID: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_WHOLE_KEY: Final = re.compile(r"[1-9][0-9]{0,4}")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _checked(raw: object, faults: _Faults) -> Catalogue:
    root = _Field(raw, (), faults)
    root.keys(known=[each.name for each in fields(Catalogue) if each.compare])
    catalogue = Catalogue(
        currency=root["currency"].match(_CURRENCY, "three capitals such as UYU"),
        tax_rate=root["tax_rate"].number(at_least=_ZERO, at_most=Decimal(1)),
        quote_validity_days=root["quote_validity_days"].whole(at_most=3650),
        max_side_m=root["max_side_m"].number(above=_ZERO, at_most=Decimal(1_000_000)),
        max_finish_sides=root["max_finish_sides"].whole(at_most=100),
        thickness_factors=_thickness_factors(root["thickness_factors"]),
        colours=tuple(_colour(each) for each in root["colours"].entries(at_least_one=True)),
        finishes=tuple(_finish(each) for each in root["finishes"].entries()),
        anchors=_option(root["anchors"]),
        freight=_option(root["freight"]),
        topics=tuple(_topic(each) for each in root["topics"].entries()),
        products=tuple(_product(each) for each in root["products"].entries(at_least_one=True)),
    )
    _check_names(root["colours"], catalogue.colours)
    _check_names(root["finishes"], catalogue.finishes)
    _check_names(root["topics"], catalogue.topics)
    _check_names(root["products"], catalogue.products)
    _check_default_colour(root["colours"], catalogue.colours)
    _check_thicknesses(root["products"], catalogue)
    _check_topics(root["products"], catalogue)
    if faults.found:
        raise CatalogueInvalid(
            faults.source, sorted(faults.found, key=lambda fault: fault.line or 0)
        )
    return catalogue


_NAMED_KEYS: Final = ("id", "name", "aliases")


def _id(entry: _Field) -> str:
    return entry["id"].match(_ID, "small letters, digits and _ such as lana_roca")


def _name(entry: _Field) -> LocalText:
    entry["name"].keys(known=("es", "en"))
    return LocalText(es=entry["name"]["es"].name(), en=entry["name"]["en"].name())


def _aliases(entry: _Field) -> tuple[str, ...]:
    if "aliases" not in entry:
        return ()
    aliases: dict[str, str] = {}
    for each in entry["aliases"].entries():
        alias = each.name()
        if plain(alias) in aliases:
            each.fault(f"{_quoted(alias)} is listed twice")
        aliases.setdefault(plain(alias), alias)
    return tuple(aliases.values())


def _thickness_factors(entry: _Field) -> tuple[ThicknessFactor, ...]:
    found = []
    for key in entry.keys():  # noqa: SIM118 (a method of ours, with a check)
        if _WHOLE_KEY.fullmatch(key) and int(key) <= MAX_THICKNESS_MM:
            found.append(ThicknessFactor(int(key), entry[key].number(above=_ZERO)))
        else:
            entry[key].fault(f"must be a thickness in mm from 1 to {MAX_THICKNESS_MM}")
    return tuple(sorted(found, key=lambda each: each.thickness_mm))


def _colour(entry: _Field) -> Colour:
    entry.keys(known=(*_NAMED_KEYS, "factor", "default"))
    return Colour(
        id=_id(entry),
        name=_name(entry),
        aliases=_aliases(entry),
        factor=entry["factor"].number(above=_ZERO),
        default="default" in entry and entry["default"].flag(),
    )


def _finish(entry: _Field) -> Finish:
    entry.keys(known=(*_NAMED_KEYS, "added_per_side"))
    return Finish(
        id=_id(entry),
        name=_name(entry),
        aliases=_aliases(entry),
        added_per_side=entry["added_per_side"].number(at_least=_ZERO),
    )


def _topic(entry: _Field) -> Topic:
    entry.keys(known=_NAMED_KEYS)
    return Topic(id=_id(entry), name=_name(entry), aliases=_aliases(entry))


def _option(entry: _Field) -> Option:
    entry.keys(known=("included", "not_included", "default"))
    default = entry["default"].match(
        re.compile("included|not_included"), "included or not_included"
    )
    return Option(
        included=entry["included"].number(above=_ZERO),
        not_included=entry["not_included"].number(above=_ZERO),
        included_by_default=default == "included",
    )


def _product(entry: _Field) -> Product:
    entry.keys(known=(*_NAMED_KEYS, "thicknesses_mm", "base_price_per_m2", "description", "facts"))
    facts = entry["facts"].keys() if "facts" in entry else []
    return Product(
        id=_id(entry),
        name=_name(entry),
        aliases=_aliases(entry),
        thicknesses_mm=_thicknesses_mm(entry["thicknesses_mm"]),
        base_price_per_m2=entry["base_price_per_m2"].number(above=_ZERO),
        description=entry["description"].local(),
        facts=tuple(Fact(topic, entry["facts"][topic].local()) for topic in facts),
    )


def _thicknesses_mm(entry: _Field) -> tuple[int, ...]:
    found: list[int] = []
    for each in entry.entries(at_least_one=True):
        thickness_mm = each.whole(at_most=MAX_THICKNESS_MM)
        if thickness_mm in found:
            each.fault(f"{thickness_mm} is listed twice")
        elif thickness_mm:
            found.append(thickness_mm)
    return tuple(sorted(found))


def _check_names(section: _Field, named: Sequence[_Named]) -> None:
    """No two entries of a section answer to one name (an entry may repeat its own)."""
    owners: dict[str, int] = {}
    for index, entry in enumerate(section.entries()):
        for place in (entry["id"], entry["name"]["es"], entry["name"]["en"], *_raw_aliases(entry)):
            name = place.raw if isinstance(place.raw, str) else ""
            owner = owners.setdefault(plain(name), index) if plain(name) else index
            if owner != index:
                place.fault(f"{_quoted(name)} is already a name of {named[owner].id or 'another'}")


def _raw_aliases(entry: _Field) -> "list[_Field]":
    return entry["aliases"].entries() if isinstance(entry["aliases"].raw, list) else []


def _check_default_colour(section: _Field, colours: Sequence[Colour]) -> None:
    # By what is written: whatever is not false was meant to be the default.
    marks = [entry["default"] for entry in section.entries() if "default" in entry]
    defaults = [mark for mark in marks if mark.raw not in ("false", False)]
    if colours and not defaults:
        section.fault("one colour must have `default: true`")
    for mark in defaults[1:]:
        mark.fault("another colour is the default already")


def _check_thicknesses(section: _Field, catalogue: Catalogue) -> None:
    with_factor = {each.thickness_mm for each in catalogue.thickness_factors}
    for entry, product in zip(section.entries(), catalogue.products, strict=True):
        for thickness_mm in product.thicknesses_mm:
            if thickness_mm not in with_factor:
                entry["thicknesses_mm"].fault(f"{thickness_mm} mm has no thickness factor")


def _check_topics(section: _Field, catalogue: Catalogue) -> None:
    topics = {topic.id for topic in catalogue.topics}
    for entry, product in zip(section.entries(), catalogue.products, strict=True):
        for fact in product.facts:
            if fact.topic not in topics:
                entry["facts"][fact.topic].fault("is not one of the topics")


# --- What changed -------------------------------------------------------------------------

ChangeValue = str | int | bool | Decimal | tuple[str, ...] | tuple[int, ...] | None


@dataclass(frozen=True)
class FieldChange:
    """A field that is not what it was, as `products.isodec.base_price_per_m2`; None where
    it did not exist. `<list>.order` is the order of the entries that stayed."""

    field: str
    old: ChangeValue
    new: ChangeValue


@dataclass(frozen=True)
class CatalogueChanges:
    """What a new catalogue changes. The fields of products that came or went are not
    listed one by one. False when nothing changed."""

    products_added: tuple[str, ...]
    products_removed: tuple[str, ...]
    fields: tuple[FieldChange, ...]

    def __bool__(self) -> bool:
        return bool(self.products_added or self.products_removed or self.fields)

    def to_document(self) -> dict[str, Any]:
        """For JSON or BSON; Decimals as strings, tuples as lists."""
        return {
            "products_added": list(self.products_added),
            "products_removed": list(self.products_removed),
            "fields": [
                {
                    "field": change.field,
                    "old": _document_value(change.old),
                    "new": _document_value(change.new),
                }
                for change in self.fields
            ],
        }


def changes(old: Catalogue, new: Catalogue) -> CatalogueChanges:
    """What is different in `new`: nothing exactly when the two are equal."""
    old_products = {product.id: product for product in old.products}
    new_products = {product.id: product for product in new.products}
    kept = old_products.keys() & new_products.keys()
    before = dict(_leaves(_only(old, kept), ""))
    after = dict(_leaves(_only(new, kept), ""))
    return CatalogueChanges(
        products_added=tuple(each for each in new_products if each not in kept),
        products_removed=tuple(each for each in old_products if each not in kept),
        fields=tuple(
            FieldChange(name, before.get(name), after.get(name))
            for name in dict.fromkeys([*before, *after])
            if before.get(name) != after.get(name)
        )
        + tuple(_reordered(old, new)),
    )


def _only(catalogue: Catalogue, product_ids: Iterable[str]) -> Catalogue:
    wanted = set(product_ids)
    kept = tuple(product for product in catalogue.products if product.id in wanted)
    return replace(catalogue, products=kept)


def _leaves(value: Any, name: str) -> Iterator[tuple[str, ChangeValue]]:
    if is_dataclass(value):
        for each in fields(value):
            if each.compare:
                yield from _leaves(getattr(value, each.name), f"{name}.{each.name}".lstrip("."))
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        for entry in value:
            yield from _leaves(entry, f"{name}.{_key(entry)}")
    elif value != ():
        yield name, value


def _key(entry: Any) -> str:
    # The first field of each of our values is what tells it from its neighbours.
    return str(getattr(entry, fields(entry)[0].name))


def _reordered(old: Any, new: Any, name: str = "") -> Iterator[FieldChange]:
    for each in fields(old):
        ours, theirs = getattr(old, each.name), getattr(new, each.name)
        if not (isinstance(ours, tuple) and ours and is_dataclass(ours[0])):
            continue
        place = f"{name}{each.name}"
        entries = {_key(entry): entry for entry in ours}
        others = {_key(entry): entry for entry in theirs}
        before = tuple(key for key in entries if key in others)
        after = tuple(key for key in others if key in entries)
        if before != after:
            yield FieldChange(f"{place}.order", before, after)
        for key in before:
            yield from _reordered(entries[key], others[key], f"{place}.{key}.")


def _document_value(value: ChangeValue) -> object:
    if isinstance(value, Decimal):
        return _digits(value)
    return list(value) if isinstance(value, tuple) else value


# --- The versions in MongoDB --------------------------------------------------------------


class CatalogueNotFound(LookupError):
    """There is no such version; with `version` None, none has been seeded or published."""

    code = "catalogue_not_found"

    def __init__(self, version: int | None) -> None:
        self.version = version
        super().__init__("no catalogue yet" if version is None else f"version {version}")


class CatalogueStore:
    """The versions of the catalogue that all processes share.

    Writes use the write concern of `database`. A version is written before the pointer
    names it, so whoever reads the pointer finds the version. A catalogue must fit into
    one document (16 MB, about 10,000 products with texts). Safe to share by threads.
    """

    SEED_KEY: Final = "seed"

    def __init__(self, database: Database[dict[str, Any]]) -> None:
        self._versions = database["catalogues"]
        self._pointer = database["catalogue_current"]
        # A version never changes, so a parsed one is good for ever; a few are enough for
        # the current one and those of quotes that are being looked at.
        self._parsed = lru_cache(maxsize=8)(self._read)

    def current(self) -> Catalogue:
        """The catalogue in force; one small read, and the whole only when it changed.

        Raises:
            CatalogueNotFound: nothing has been seeded.
        """
        version = self._current_version()
        if version is None:
            raise CatalogueNotFound(None)
        return self._parsed(version)

    def version(self, version: int) -> Catalogue:
        """A catalogue that is or was in force, or was overtaken before it could be.

        Raises:
            CatalogueNotFound: there is no such version.
        """
        return self._parsed(version)

    def seed(self, catalogue: Catalogue) -> int:
        """Make this version 1 unless there is a catalogue already; the current version.

        Any number of processes may do it at once, and each time they start.
        """
        self._ensure_indexes()
        version = self._current_version()
        if version is not None:
            return version
        self._insert(1, catalogue, self.SEED_KEY)
        return self._advance(1)

    def publish(self, catalogue: Catalogue, source_key: str) -> int:
        """Make this the current catalogue, once for each `source_key`; its version.

        Run again with the same key (after a crash, or by two processes at once) it gives
        the same version, whatever the catalogue, and never turns back a later one.

        Raises:
            CatalogueInvalid: it was put together by hand, and wrongly; nothing is stored.
        """
        Catalogue.from_document(catalogue.to_document(), source=source_key)
        self._ensure_indexes()
        version = self._current_version() or 0
        while (published := self._published(source_key)) is None:
            # A number may be taken by a publisher that has not moved the pointer yet, or
            # died before it could.
            version += 1
            self._insert(version, catalogue, source_key)
        self._advance(published)
        return published

    def _ensure_indexes(self) -> None:
        self._versions.create_index("source_key", unique=True)

    def _current_version(self) -> int | None:
        pointer = self._pointer.find_one({"_id": "current"})
        return None if pointer is None else int(pointer["version"])

    def _published(self, source_key: str) -> int | None:
        found = self._versions.find_one({"source_key": source_key}, {"_id": 1})
        return None if found is None else int(found["_id"])

    def _read(self, version: int) -> Catalogue:
        document = self._versions.find_one({"_id": version})
        if document is None:
            raise CatalogueNotFound(version)
        catalogue = Catalogue.from_document(
            document["catalogue"], source=f"catalogue version {version}"
        )
        return replace(catalogue, version=version)

    def _insert(self, version: int, catalogue: Catalogue, source_key: str) -> None:
        """Store a version, unless the number or the key is taken."""
        with suppress(DuplicateKeyError):
            self._versions.insert_one(
                {
                    "_id": version,
                    "source_key": source_key,
                    "published_at": datetime.now(UTC),
                    "catalogue": catalogue.to_document(),
                }
            )

    def _advance(self, version: int) -> int:
        """Let the pointer name this version, or leave it at a later one; what it names."""
        while True:
            current = self._current_version()
            if current is not None and current >= version:
                return current
            try:
                self._pointer.update_one(
                    {"_id": "current", "version": {"$lt": version}},
                    {"$set": {"version": version}},
                    upsert=True,
                )
            except DuplicateKeyError:
                continue  # somebody moved it first: look again
