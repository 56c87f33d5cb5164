"""What a customer has against the offer, as far as it is said; for the figures only."""

import re
from typing import Final

from agents.conversation.lexicon import fold
from agents.conversation.meaning import Understanding

# It takes too long. On folded text: no accents, lower case. A question about the time is none.
_DELAY: Final = re.compile(
    r"\b("
    r"(demora|tarda)(n|s|ria|rian)? (mucho|demasiado|tanto|una eternidad)"
    r"|(mucha|demasiada|tanta) (demora|espera)"
    r"|(mucho|demasiado) tiempo (de entrega|de espera|para)"
    r"|no (puedo|podemos|me da para|nos da para) esperar"
    r"|(lo|la|los|las) (necesito|preciso|necesitaba|precisaba) (antes|ya|para ya|urgente)"
    r"|(consegui|consigo|encontre) (otro|otra|uno|alguien|en otro lado).{0,30} (antes|mas rapido)"
    r"|takes? (too|so) long|too long (a wait|to wait)|too slow"
    r"|(can't|cannot|can not) wait|need (it|them) (sooner|earlier|right away|now)"
    r")\b"
)


def objections(understood: Understanding, text: str) -> tuple[str, ...]:
    """What is objected in a message: any of "price", "delay"."""
    found = []
    if understood.wants("price_objection"):
        found.append("price")
    # Folding is linear; a longer message says it early or not at all.
    if _DELAY.search(" ".join(fold(text[:2000]).split())):
        found.append("delay")
    return tuple(found)
