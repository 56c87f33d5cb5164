"""What the conversation agent says, in the customer's language.

Keeps secret where the texts are (gettext catalogues in `locale/`, read as they are, so that
nothing has to be compiled before a run) and how a language writes numbers, money and lists.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from typing import Final

from babel.dates import format_date
from babel.lists import format_list
from babel.messages.pofile import read_po
from babel.numbers import format_currency, format_decimal

from agents.catalogue import Language

# Uruguay's separators in Spanish: the shipped business is there.
_LOCALES: Final = {"es": "es_UY", "en": "en_US"}


def say(language: Language, text: str, **facts: str | int) -> str:
    """A text of the catalogues with its gaps filled.

    Raises:
        KeyError: there is no such text, or a gap has no fact.
    """
    return texts(language)[text].format(**facts)


@lru_cache(maxsize=4)
def texts(language: Language) -> dict[str, str]:
    """Every text of a language by its id."""
    source = files(__package__) / "locale" / language / "LC_MESSAGES" / "messages.po"
    catalogue = read_po(BytesIO(source.read_bytes()), locale=language)
    return {str(message.id): str(message.string) for message in catalogue if message.id}


def one_of(language: Language, words: Sequence[str | int]) -> str:
    """ "50, 75 o 100"."""
    return _listed(language, words, "or")


def all_of(language: Language, words: Sequence[str | int]) -> str:
    """ "el espesor y las medidas"."""
    return _listed(language, words, "standard")


def _listed(language: Language, words: Sequence[str | int], style: str) -> str:
    strings = [str(word) for word in words]
    return format_list(strings, style=style, locale=_LOCALES[language])  # type: ignore[arg-type]


def number(language: Language, value: Decimal | int) -> str:
    """All digits of a number, with the language's separators."""
    shown: str = format_decimal(value, locale=_LOCALES[language], decimal_quantization=False)
    return shown


def money(language: Language, amount: Decimal, currency: str) -> str:
    """An amount with its currency, in cents."""
    # The code where the sign would not be known: "UYU 7,500.00", but "$ 7.500,00".
    pattern = "¤¤\u00a0#,##0.00" if language == "en" else None
    shown: str = format_currency(amount, currency, pattern, locale=_LOCALES[language])
    return shown


def date(language: Language, moment: datetime) -> str:
    """The day of a moment, as it is written there."""
    shown: str = format_date(moment.date(), format="medium", locale=_LOCALES[language])
    return shown
