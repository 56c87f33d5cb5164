"""Texts that agents write: whole in every language, with nothing left unfilled."""

import re
import string
from typing import get_args

import pytest
import yaml

from agents.catalogue import Language
from agents.messages import TEXTS, MessageKind, compose, text

ALL = yaml.safe_load(TEXTS.read_text(encoding="utf-8"))


def test_every_text_is_there_in_every_language_with_the_same_gaps() -> None:
    for key, texts in ALL.items():
        assert texts.keys() == {"es", "en"}, key
        gaps = [{gap for _, gap, _, _ in string.Formatter().parse(each)} for each in texts.values()]
        assert gaps[0] == gaps[1], key


@pytest.mark.parametrize("kind", [kind for kind in get_args(MessageKind) if kind != "custom"])
@pytest.mark.parametrize("language", ["es", "en"])
@pytest.mark.parametrize("name", [None, "Ana {quote_code}"])
def test_a_message_greets_and_has_no_gaps(
    kind: MessageKind, language: Language, name: str | None
) -> None:
    written = compose(kind, language, name=name, quote_code="COT-2026-000001")
    assert re.match(r"(Hola|Hello)\b", written)
    # What a customer is called is put in as it is, and never filled in itself.
    assert written.count("{") == (0 if name is None else 1)
    assert ("COT-2026-000001" in written) == kind.startswith("quote")


def test_a_message_about_a_quote_needs_its_code() -> None:
    with pytest.raises(KeyError, match="quote_code"):
        compose("quote_sent", "es", name=None, quote_code=None)


def test_a_text_in_spanish() -> None:
    assert text("fact_unknown", "es", product="Isodec") == "No tengo ese dato de Isodec."
