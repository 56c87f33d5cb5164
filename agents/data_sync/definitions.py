"""The syncs, connections and sinks of a business, as its settings file names them.

Keeps secret how the file (`SYNCS_FILE`, YAML; docs/data-sync.md) is written down and checked. It
holds no secrets: `secret: shop` names one of `SYNC_SECRETS`.
"""

import datetime as dt
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agents.data_file import Where, faults_of, lines_of, not_yaml
from agents.data_sync.files import FileFormat
from agents.data_sync.mapping import Column
from agents.data_sync.reconcile import Rule

MAX_FILE_BYTES: Final = 1024 * 1024

Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,59}$")]
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,59}$")]
Text = Annotated[str, Field(min_length=1, max_length=300)]
Url = Annotated[str, Field(pattern=r"^https?://\S{1,500}$")]


class DefinitionsInvalid(ValueError):
    """The file cannot be used; every fault with its line and field."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(faults))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FileSide(_Strict):
    """A file of the import folder."""

    type: Literal["file"]
    path: Text
    format: FileFormat | None = None
    sheet: Text | None = None
    header_row: int = Field(1, ge=1, le=1000)
    items: str = Field("", max_length=200)


class ClientCredentials(_Strict):
    """OAuth 2.0 client credentials (RFC 6749, 4.4); `secret` names the client's secret."""

    token_url: Url
    client_id: Text
    secret: Id
    scope: Text | None = None


class Paging(_Strict):
    """How pages are asked for. `page` counts from `first`, `offset` rows, `cursor` sends back what
    `next` (a path in the answer) held, `link` follows the Link header (RFC 8288)."""

    kind: Literal["none", "page", "offset", "cursor", "link"] = "none"
    parameter: Text = "page"
    first: int = Field(1, ge=0, le=1)
    size_parameter: Text | None = None
    size: int = Field(100, ge=1, le=1000)
    next: Text | None = None


class HttpSide(_Strict):
    """Any HTTP API that answers with JSON.

    `changed_since` is the parameter that takes the time of the last sync, where there is one;
    `write_url` (with `{key}`) takes a PUT of a row.
    """

    type: Literal["http"]
    url: Url
    items: str = Field("", max_length=200)
    paging: Paging = Paging()
    secret: Id | None = None
    oauth: ClientCredentials | None = None
    changed_since: Text | None = None
    write_url: Url | None = None


class ShopifySide(_Strict):
    """Products' variants of a Shopify shop, by its GraphQL Admin API; `secret` names the access
    token. Rows are variants, under their SKU or id."""

    type: Literal["shopify"]
    url: Url
    secret: Id
    version: str = Field("2026-10", pattern=r"^20\d\d-(01|04|07|10)$")
    key: Literal["sku", "id"] = "sku"


class MercadoLibreSide(_Strict):
    """Items of a MercadoLibre seller. `secret` names the client's secret; with `refresh_secret`
    its first refresh token, else the application's own grant."""

    type: Literal["mercadolibre"]
    url: Url = "https://api.mercadolibre.com"
    seller_id: int = Field(ge=1)
    client_id: Text
    secret: Id
    refresh_secret: Id | None = None


class GoogleSheetSide(_Strict):
    """A sheet of a Google spreadsheet. `secret` names the service account's key (its JSON);
    `key_column` is the column that rows are known by, added at the right where it is missing."""

    type: Literal["google_sheet"]
    url: Url = "https://sheets.googleapis.com"
    spreadsheet: str = Field(pattern=r"^[A-Za-z0-9_-]{10,100}$")
    sheet: Text
    key_column: Text
    header_row: int = Field(1, ge=1, le=100)
    secret: Id


class WebhookSide(_Strict):
    """A receiver of Standard Webhooks, such as n8n: written to only. `secret` names its key."""

    type: Literal["webhook"]
    url: Url
    secret: Id
    event: Text = "row.changed"


class CatalogueSide(_Strict):
    """Our catalogue: its products, by id. Rows that are written make one new version."""

    type: Literal["catalogue"]


class RecordsSide(_Strict):
    """Rows of others that the desk keeps as they are, under a name."""

    type: Literal["records"]
    dataset: Id


Side = Annotated[
    FileSide
    | HttpSide
    | ShopifySide
    | MercadoLibreSide
    | GoogleSheetSide
    | WebhookSide
    | CatalogueSide
    | RecordsSide,
    Field(discriminator="type"),
]
OURS: Final = (CatalogueSide, RecordsSide)
READABLE: Final = (
    FileSide,
    HttpSide,
    ShopifySide,
    MercadoLibreSide,
    GoogleSheetSide,
    CatalogueSide,
    RecordsSide,
)
WRITABLE: Final = (
    HttpSide,
    ShopifySide,
    MercadoLibreSide,
    GoogleSheetSide,
    WebhookSide,
    CatalogueSide,
    RecordsSide,
)
PRODUCT_FIELDS: Final = (
    "id",
    "name_es",
    "name_en",
    "aliases",
    "thicknesses_mm",
    "base_price_per_m2",
    "description_es",
    "description_en",
)


class Sync(_Strict):
    """Rows from a source to a target. `columns` says how a record is read from the source's rows,
    `target_columns` what the target calls a field (else as it is). `key` is the field that tells
    rows apart. Rows are deleted at the target only with `deletes`, and no more than `max_gone_pct`
    of them without a person's word."""

    source: Side
    target: Side
    key: FieldName = "id"
    columns: dict[FieldName, Column] = Field(min_length=1, max_length=200)
    target_columns: dict[FieldName, Text] = Field(default={}, max_length=200)
    conflicts: Rule = "theirs"
    deletes: bool = False
    max_gone_pct: float = Field(20.0, ge=0, le=100)
    schedule: Annotated[str, Field(max_length=100)] | None = None
    patience_s: float = Field(3600.0, gt=0, le=7 * 86_400)

    @field_validator("schedule")
    @classmethod
    def _a_schedule(cls, cron: str | None) -> str | None:
        if cron is not None:
            try:
                next(CronSim(cron, dt.datetime.now(dt.UTC)))
            except (CronSimError, StopIteration):
                raise ValueError('must be in cron form, such as "0 6 * * mon-fri"') from None
        return cron

    @model_validator(mode="after")
    def _sides_fit(self) -> Self:
        if self.key not in self.columns:
            raise ValueError(f"columns must have the key, {self.key}")
        if not isinstance(self.source, READABLE):
            raise ValueError(f"{self.source.type} cannot be read")
        if not isinstance(self.target, WRITABLE):
            raise ValueError(f"{self.target.type} cannot be written")
        if isinstance(self.target, HttpSide) and self.target.write_url is None:
            raise ValueError("an http target needs a write_url")
        if isinstance(self.target, CatalogueSide):
            unknown = set(self.columns) - set(PRODUCT_FIELDS)
            if unknown or self.key != "id":
                raise ValueError(f"a catalogue has the key id and the fields {PRODUCT_FIELDS}")
        if unknown := set(self.target_columns) - set(self.columns):
            raise ValueError(f"target_columns names no columns: {sorted(unknown)}")
        return self

    @property
    def source_is_ours(self) -> bool:
        """Whether rows go out."""
        return isinstance(self.source, OURS)


class Sink(_Strict):
    """Where each new or changed quote goes. `columns` says which of the quote's fields stand under
    which of the target's columns; without any, all under their own names."""

    target: Annotated[
        HttpSide | GoogleSheetSide | WebhookSide | RecordsSide, Field(discriminator="type")
    ]
    columns: dict[Annotated[str, Field(max_length=100)], Column] = Field(default={}, max_length=100)


class Questions(_Strict):
    """A MercadoLibre seller whose questions are answered here."""

    account: MercadoLibreSide


class Definitions(_Strict):
    """All that the file names."""

    syncs: dict[Id, Sync] = Field(default={}, max_length=100)
    quote_sinks: dict[Id, Sink] = Field(default={}, max_length=20)
    questions: Questions | None = None


def load_definitions(path: Path | None) -> Definitions:
    """What a settings file names; nothing without one. Read again where it has changed.

    Raises:
        DefinitionsInvalid: with everything that is wrong in it, each with its line.
        OSError: the file cannot be read.
    """
    if path is None:
        return Definitions()
    stat = path.stat()
    if stat.st_size > MAX_FILE_BYTES:
        raise DefinitionsInvalid([f"{path.name}: is larger than 1 MB"])
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int, size: int) -> Definitions:
    return parse_definitions(path.read_bytes(), path.name)


def parse_definitions(text: str | bytes, name: str) -> Definitions:
    """As `load_definitions`, from the text of a file; `name` names it in errors."""
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
        if root is not None and any(_aliased(root, set())):
            raise DefinitionsInvalid([f"{name}: has YAML aliases (*name): write them out"])
        raw = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise DefinitionsInvalid([not_yaml(name, error)]) from error
    try:
        return Definitions.model_validate({} if raw is None else raw)
    except ValidationError as error:
        faults = faults_of(error, name, dict(lines_of(root)), _without_tags)
        raise DefinitionsInvalid(faults) from None


_TAGS: Final = frozenset(
    re.findall(r"[a-z_]+", "file http shopify mercadolibre google_sheet webhook catalogue records")
)


def _without_tags(where: Where) -> Where:
    """A place as the file has it: the name of a union's member is no key there."""
    return tuple(
        part
        for before, part in zip(("", *where), where, strict=False)
        if not (part in _TAGS and before in ("source", "target"))
    )


def _aliased(node: yaml.Node, seen: set[int]) -> Iterator[bool]:
    if id(node) in seen:
        yield True
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _aliased(key, seen)
            yield from _aliased(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _aliased(value, seen)
