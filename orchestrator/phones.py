"""Phone numbers: read in any usual way of writing, and found again in all of them."""

import re
from collections.abc import Iterator
from typing import Any

import phonenumbers
from phonenumbers import PhoneNumberFormat

HOME_REGION = "UY"  # a phone without a country code is from here
_SEPARATORS = re.compile(r"[\s().\-/+]+")


def e164(phone: str) -> str:
    """A phone number in E.164 form.

    Raises:
        ValueError: it is no phone number.
    """
    try:
        number = phonenumbers.parse(phone, HOME_REGION)
        if not phonenumbers.is_valid_number(number) and not phone.lstrip().startswith("+"):
            # WhatsApp writes numbers with the country code and without a plus.
            abroad = phonenumbers.parse(f"+{phone}", None)
            number = abroad if phonenumbers.is_valid_number(abroad) else number
    except phonenumbers.NumberParseException:
        raise ValueError("is not a phone number") from None
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def spellings(phone: str) -> list[str]:
    """The usual ways of writing a number in E.164: for fields that hold nothing else."""
    number = phonenumbers.parse(phone, None)
    written = {
        phonenumbers.format_number(number, form)
        for form in (
            PhoneNumberFormat.E164,
            PhoneNumberFormat.INTERNATIONAL,
            PhoneNumberFormat.NATIONAL,
        )
    }
    return sorted(written | {_SEPARATORS.sub("", form) for form in written})


def names(value: Any, phone: str) -> bool:
    """Whether any text within a value holds the number, however it is written."""
    # What all ways of writing have in common: the digits without country code and trunk zero.
    core = phonenumbers.national_significant_number(phonenumbers.parse(phone, None))
    return any(core in _SEPARATORS.sub("", text) for text in texts(value))


def texts(value: Any) -> Iterator[str]:
    """Every text within a value, names of fields included."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            left += each.values()
            left += each.keys()
        elif isinstance(each, (list, tuple)):
            left += each
