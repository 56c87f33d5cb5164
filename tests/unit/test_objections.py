"""Objections are told from questions, in the words that customers use."""

import pytest

from agents.catalogue import load_catalogue
from agents.conversation.objections import objections
from agents.conversation.understanding import understand

CATALOGUE = load_catalogue()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("uh es muy caro", ("price",)),
        ("demora mucho, no me sirve", ("delay",)),
        ("¡Tardan demasiado!", ("delay",)),
        ("no puedo esperar tanto", ("delay",)),
        ("lo preciso antes del viernes", ("delay",)),
        ("está caro y encima tardan mucho", ("price", "delay")),
        ("that takes too long for us", ("delay",)),
        ("cuánto demora la entrega?", ()),
        ("tardan en contestar?", ()),
        ("hola, precio de isodec de 100", ()),
        ("", ()),
    ],
)
def test_an_objection_is_heard(text: str, found: tuple[str, ...]) -> None:
    assert objections(understand(text, CATALOGUE), text) == found
