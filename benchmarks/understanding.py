"""What it costs to understand a message: usual ones, and 10 kB of the worst."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import yaml

from agents.catalogue import load_catalogue
from agents.conversation import lexicon
from agents.conversation.understanding import understand

MESSAGES: Final = Path(__file__).parents[1] / "tests" / "conversations"
USUAL_CHARS: Final = 400
LONG_CHARS: Final = 10_000
REPEATS: Final = 5
_WORDS: Final = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Usual:
    """Milliseconds of CPU for one message as customers write them."""

    messages: int
    p50_ms: float
    p99_ms: float
    ratio: float


@dataclass(frozen=True)
class Long:
    """Milliseconds of CPU for 10 kB, as ratio to the yardstick, and to half of the text."""

    case: str
    ms: float
    ratio: float
    to_half: float


def yardstick(text: str) -> None:
    """The least that anything which reads words does: split a text into them."""
    _WORDS.findall(text.lower())


def usual_messages() -> Usual:
    """The messages of the corpus of conversations, each at its best of a few."""
    catalogue = load_catalogue()
    texts = [text for text in _corpus() if len(text) <= USUAL_CHARS]
    for text in texts:
        understand(text, catalogue)  # misspelt words are remembered
    ours = sorted(_ms(partial(understand, text, catalogue)) for text in texts)
    theirs = sorted(_ms(partial(yardstick, text)) for text in texts)
    middle = len(texts) // 2
    return Usual(
        len(texts), ours[middle], ours[int(0.99 * len(ours))], ours[middle] / theirs[middle]
    )


def long_messages() -> list[Long]:
    """10 kB each, the slowest first."""
    catalogue = load_catalogue()
    measured = []
    for case, unit in _units().items():
        text = (unit * (LONG_CHARS // len(unit) + 1))[:LONG_CHARS]
        half = text[: LONG_CHARS // 2]
        ms = _ms(partial(understand, text, catalogue))
        half_ms = _ms(partial(understand, half, catalogue))
        theirs = _ms(partial(yardstick, text))
        measured.append(Long(case, ms, ms / theirs, ms / half_ms))
    return sorted(measured, key=lambda each: -each.ms)


def _units() -> dict[str, str]:
    """What 10 kB are made of: prose, orders, and the words with which most cues begin."""
    first_words = [phrase.split()[0] for phrases in lexicon.CUES.values() for phrase in phrases]
    commonest = max(set(first_words), key=first_words.count)
    return {
        "prose": " ".join(text for text in _corpus() if len(text) <= USUAL_CHARS) + " ",
        "orders": "isodec 100 10x5 y ",
        "numbers": "100 ",
        "sizes": "10x5 ",
        "pieces": "3 paneles ",
        "sides": "largo 10 ",
        "finishes": "con gotero ",
        "every cue": " ".join(dict.fromkeys(first_words)) + " ",
        f"cues ({commonest})": f"{commonest} ",
        "cues with gaps": "hablar con ",
        "misspelt": " ".join(f"pal{number:x}bra" for number in range(LONG_CHARS // 8)),
        "one letter": "a",
    }


def _corpus() -> list[str]:
    texts = []
    for path in sorted(MESSAGES.glob("*.yaml")):
        for conversation in yaml.safe_load(path.read_text(encoding="utf-8")):
            texts += [turn["says"] for turn in conversation]
    return texts


def _ms(call: Callable[[], object]) -> float:
    """CPU time, best of a few: a machine busy with others says nothing of the text."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return best * 1e3
