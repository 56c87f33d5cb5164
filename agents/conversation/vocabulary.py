"""Finding words in a message: phrases of a lexicon, names of a catalogue, misspellings.

Keeps secret how a phrase is looked up in time that does not depend on how many there are,
and how a misspelt word is led to the word that was meant. Nothing here knows what a word
is good for.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, TypeVar

from rapidfuzz import process
from rapidfuzz.distance import OSA

from agents.catalogue import Catalogue, names_of, plain
from agents.conversation import lexicon
from agents.conversation.lexicon import key_of

MAX_GAP_WORDS: Final = 3  # what `~` may stand for in a cue
_STEM_LETTERS: Final = 4  # of a stem ("cotiz*"), enough to look it up by
# Each look-up of an unknown word costs some 20 µs; nobody misspells more words than this.
MAX_UNKNOWN_WORDS: Final = 200

T = TypeVar("T")


class Phrases(Generic[T]):
    """Phrases with what they stand for; finds those that begin at a token, longest first."""

    def __init__(self, phrases: Iterable[tuple[str, T]]) -> None:
        self._by_first: dict[str, list[_Phrase[T]]] = {}
        self._by_stem: dict[str, list[_Phrase[T]]] = {}
        for text, meaning in phrases:
            words = tuple(_phrase_key(word) for word in lexicon.fold(text).split())
            if not words:
                continue
            phrase = _Phrase(words, meaning, plain=not any(w[-1] in "~*" for w in words))
            if words[0].endswith("*"):
                self._by_stem.setdefault(words[0][:_STEM_LETTERS], []).append(phrase)
            else:
                self._by_first.setdefault(words[0], []).append(phrase)
        for entries in (*self._by_first.values(), *self._by_stem.values()):
            entries.sort(key=lambda phrase: -len(phrase.words))

    def at(self, keys: Sequence[str], start: int) -> tuple[T, int] | None:
        """What the longest phrase beginning at `start` stands for, and where it ends."""
        if not self._by_stem and keys[start] not in self._by_first:
            return None
        found = self.all_at(keys, start)
        return found[0] if found else None

    def all_at(self, keys: Sequence[str], start: int) -> list[tuple[T, int]]:
        """Everything that a phrase beginning at `start` stands for, with where it ends."""
        first = keys[start]
        entries = self._by_first.get(first, ())
        stems = self._by_stem.get(first[:_STEM_LETTERS], ())
        if not entries and not stems:
            return []
        found: list[tuple[T, int]] = []
        for phrase in (*entries, *stems):
            end = phrase.end(keys, start)
            if end:
                found.append((phrase.meaning, end))
        return found


@dataclass(frozen=True, slots=True)
class _Phrase(Generic[T]):
    words: tuple[str, ...]
    meaning: T
    plain: bool  # no gap and no stem in it

    def end(self, keys: Sequence[str], start: int) -> int:
        """Where the phrase ends if it begins at `start`; 0 when it does not."""
        words = self.words
        if self.plain:
            size = len(words)
            if size == 1:
                return start + 1  # the first word is what it was found by
            same = tuple(keys[start : start + size]) == words
            return start + size if same else 0
        at, gap = start, 0
        for word in words:
            if word == "~":
                gap = MAX_GAP_WORDS
                continue
            for place in range(at, min(at + gap + 1, len(keys))):
                if _same(word, keys[place]):
                    at = place + 1
                    break
            else:
                return 0
            gap = 0
        return at


def _phrase_key(word: str) -> str:
    return key_of(word[:-1]) + "*" if word.endswith("*") else key_of(word)


def _same(word: str, key: str) -> bool:
    return key.startswith(word[:-1]) if word.endswith("*") else word == key


@dataclass(frozen=True)
class Guess:
    """A product that a word may stand for: surely, or so likely that one should ask."""

    product: str
    sure: bool


class Vocabulary:
    """The words of the lexicon and of one catalogue. Get one from `vocabulary_of`."""

    def __init__(self, catalogue: Catalogue) -> None:
        products = [
            (plain(name), product.id)
            for product in catalogue.products
            for name in names_of(product)
        ]
        self.products = Phrases(products)
        self.other_products = Phrases((name, name) for name in lexicon.OTHER_PRODUCTS)
        self.colours = Phrases(
            (plain(name), colour.id) for colour in catalogue.colours for name in names_of(colour)
        )
        self.finishes = Phrases(
            (_bare_name(name), finish.id)
            for finish in catalogue.finishes
            for name in names_of(finish)
        )
        topics = [(plain(name), topic.id) for topic in catalogue.topics for name in names_of(topic)]
        for name, phrases in lexicon.TOPIC_WORDS.items():
            known = catalogue.topic(name)
            if known is not None:
                topics += ((phrase, known.id) for phrase in phrases)
        self.topics = Phrases(topics)
        self.thicknesses_mm = frozenset(
            thickness for product in catalogue.products for thickness in product.thicknesses_mm
        )
        self._joined_names: dict[str, str] = {}
        self._single_words = _telling_words(products)
        for name, product_id in products:
            joined = key_of(lexicon.fold(name.replace(" ", "")))
            if len(joined) >= 5:
                self._joined_names.setdefault(joined, product_id)
        self._names_by_length = _by_length(self._joined_names)
        catalogue_words = {
            key_of(lexicon.fold(word))
            for names in (
                *map(names_of, catalogue.products),
                *map(names_of, catalogue.colours),
                *map(names_of, catalogue.finishes),
                *map(names_of, catalogue.topics),
            )
            for name in names
            for word in plain(name).split()
        }
        self.known = lexicon.vocabulary() | catalogue_words
        self._known_by_length = _by_length(
            key for key in self.known if len(key) >= 4 and key not in lexicon.NUMBERS
        )
        # Shared by all messages: most customers misspell the same words.
        self.corrected = lru_cache(maxsize=4096)(self._corrected)
        self.product_like = lru_cache(maxsize=4096)(self._product_like)

    def product_word(self, key: str) -> str | None:
        """The product that a single word of its name tells, such as "lana" for lana de roca."""
        return self._single_words.get(key)

    def _corrected(self, key: str) -> str:
        """The known word that a misspelt one was meant to be, or the word itself."""
        if len(key) < 5 or len(key) > 24:
            return key
        allowed = 2 if len(key) >= 9 else 1
        best = _nearest(key, self._known_by_length, allowed)
        return best[0] if best is not None else key

    def _product_like(self, joined: str) -> Guess | None:
        """The product whose name sounds like these words written as one."""
        exact = self._joined_names.get(joined)
        if exact is not None:
            return Guess(exact, sure=True)
        if len(joined) < 5 or len(joined) > 40:
            return None
        allowed = 2 if len(joined) >= 9 else 1
        names = process.extract(
            joined,
            _candidates(joined, self._names_by_length, allowed + 1),
            scorer=OSA.distance,
            score_cutoff=allowed + 1,
            limit=3,
        )
        if not names:
            return None
        distance = names[0][1]
        closest = {self._joined_names[name] for name, far, _ in names if far == distance}
        if len(closest) > 1:
            return None
        name = names[0][0]
        if distance > allowed and (name[0] != joined[0] or len(joined) < 6):
            return None
        return Guess(closest.pop(), sure=distance <= allowed)


def _bare_name(name: str) -> str:
    """ "con gotero" is found as "gotero": what is around a finish is read apart."""
    words = plain(name).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("con", "de", "with") else words)


def _telling_words(names: Iterable[tuple[str, str]]) -> dict[str, str]:
    owners: dict[str, set[str]] = {}
    for name, product_id in names:
        words = name.split()
        for word in words if len(words) > 1 else ():
            if len(word) < 4:
                continue
            owners.setdefault(key_of(lexicon.fold(word)), set()).add(product_id)
    return {
        key: next(iter(products))
        for key, products in owners.items()
        if len(products) == 1 and key not in lexicon.GENERIC_PRODUCT_KEYS
    }


def _by_length(words: Iterable[str]) -> dict[int, list[str]]:
    grouped: dict[int, list[str]] = {}
    for word in sorted(words):
        grouped.setdefault(len(word), []).append(word)
    return grouped


def _candidates(word: str, by_length: dict[int, list[str]], allowed: int) -> list[str]:
    return [
        candidate
        for length in range(len(word) - allowed, len(word) + allowed + 1)
        for candidate in by_length.get(length, ())
    ]


def _nearest(word: str, by_length: dict[int, list[str]], allowed: int) -> tuple[str, float] | None:
    """The one nearest word within the allowed distance; None when two are as near."""
    found = process.extract(
        word,
        _candidates(word, by_length, allowed),
        scorer=OSA.distance,
        score_cutoff=allowed,
        limit=2,
    )
    if not found or (len(found) == 2 and found[0][1] == found[1][1]):
        return None
    return found[0][0], found[0][1]


# Catalogues are few and change rarely: comparing them by identity is enough, and cheaper
# than by value, which a catalogue of thousands of products would pay with every message.
_recent: deque[tuple[Catalogue, Vocabulary]] = deque(maxlen=4)


def vocabulary_of(catalogue: Catalogue) -> Vocabulary:
    """The vocabulary of a catalogue, built once for each catalogue object in use."""
    for known, vocabulary in tuple(_recent):
        if known is catalogue:
            return vocabulary
    vocabulary = Vocabulary(catalogue)
    _recent.append((catalogue, vocabulary))
    return vocabulary
