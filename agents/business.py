"""The business that the customers deal with, as its documents show it.

Keeps secret where its details are: `business.yaml`, beside this file, or the file that the
setting `business_file` names. It is checked as a whole when it is read.
"""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agents.data_file import faults_of, lines_of, not_yaml
from orchestrator.declarations import Resource
from orchestrator.engine import Engine
from orchestrator.errors import BadSettings
from orchestrator.tasks import store_errors

SHIPPED_BUSINESS: Final = Path(__file__).with_name("business.yaml")
MAX_LOGO_BYTES: Final = 1024 * 1024

PNG: Final = b"\x89PNG\r\n\x1a\n"
JPEG: Final = b"\xff\xd8\xff"

# One document, `_id` "business"; `logo` is the id of a file.
RESOURCE: Final = Resource(
    name="business",
    collection="business",
    fields=("name", "legal_name", "phone", "email", "website", "colour", "logo"),
)

Line = Annotated[str, Field(min_length=1, max_length=80)]
Paragraph = Annotated[str, Field(min_length=1, max_length=500)]


class BusinessInvalid(ValueError):
    """The file cannot be used; every fault with its file, line and field."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(faults))


class Terms(BaseModel):
    """Paragraphs under a quote, by language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    es: tuple[Paragraph, ...] = Field((), max_length=10)
    en: tuple[Paragraph, ...] = Field((), max_length=10)


class Business(BaseModel):
    """Who makes out the quotes. `logo` is the content of a PNG or JPEG file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Line
    legal_name: Line
    tax_id: Line
    address: tuple[Line, ...] = Field(max_length=4)
    phone: Line
    email: Line
    website: Line | None = None
    logo: bytes | None = None
    colour: str = Field("#222222", pattern=r"^#[0-9a-fA-F]{6}$")
    timezone: str = "UTC"
    terms: Terms = Terms()

    @field_validator("logo")
    @classmethod
    def _an_image(cls, content: bytes | None) -> bytes | None:
        if content is not None and not content.startswith((PNG, JPEG)):
            raise ValueError("must be a PNG or JPEG file")
        return content

    @field_validator("timezone")
    @classmethod
    def _a_timezone(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_+/-]{1,60}", name):
            raise ValueError("must be a name such as America/Montevideo")
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError("must be a name such as America/Montevideo") from None
        return name


def load_business(path: Path | None = None) -> Business:
    """The business of a data file; without a path, the one that ships. Read once per process.

    Raises:
        BusinessInvalid: with everything that is wrong in the file, each with its line.
        OSError: the file cannot be read.
    """
    return _read(path or SHIPPED_BUSINESS)


def publish_business(engine: Engine) -> None:
    """Let the front door's page know whom it speaks for.

    Raises:
        BadSettings: the file cannot be used; with everything that is wrong in it.
        StoreUnavailable: MongoDB does not answer.
    """
    try:
        business = load_business(engine.settings.business_file)
    except (BusinessInvalid, OSError) as error:
        raise BadSettings(f"BUSINESS_FILE: {error}") from error
    logo = None
    if business.logo is not None:
        logo = f"logo.{hashlib.sha256(business.logo).hexdigest()[:32]}"
        kind = "png" if business.logo.startswith(PNG) else "jpeg"
        engine.files.keep(logo, business.logo, content_type=f"image/{kind}", name=f"logo.{kind}")
    shown = business.model_dump(include=set(RESOURCE.fields) - {"logo"}) | {"logo": logo}
    with store_errors():
        engine.database[RESOURCE.collection].update_one(
            {"_id": RESOURCE.name}, {"$set": shown}, upsert=True
        )


@lru_cache(maxsize=4)
def _read(path: Path) -> Business:
    text = path.read_text(encoding="utf-8")
    try:
        # BaseLoader: a phone number stays the text that was written.
        raw = yaml.load(text, Loader=yaml.CBaseLoader)
        lines = dict(lines_of(yaml.compose(text, Loader=yaml.CBaseLoader)))
    except yaml.YAMLError as error:
        raise BusinessInvalid([not_yaml(path.name, error)]) from error
    faults = []
    if isinstance(raw, dict) and isinstance(raw.get("logo"), str):
        logo = path.parent / raw["logo"]
        try:
            if logo.stat().st_size > MAX_LOGO_BYTES:
                faults.append(f"{path.name}:{lines[('logo',)]}: logo: is larger than 1 MB")
            raw["logo"] = logo.read_bytes()
        except OSError:
            faults.append(f"{path.name}:{lines[('logo',)]}: logo: there is no such file")
            raw.pop("logo")
    try:
        business = Business.model_validate(raw)
    except ValidationError as error:
        faults += faults_of(error, path.name, lines)
    if faults:
        raise BusinessInvalid(faults)
    return business
