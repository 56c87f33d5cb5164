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
_STEM_LETTERS: Final = (2, 4)  # of a stem ("cotiz*"), fewest and enough to look it up by
# Each look-up of an unknown word costs some 20 µs; nobody misspells more words than this.
MAX_UNKNOWN_WORDS: Final = 200

T = TypeVar("T")


class Phrases(Generic[T]):
    """Phrases with what they stand for; finds those that begin at a token, longest first.

    They are a tree by their words, so that a word with which a hundred phrases begin costs no
    more than one with which one does.
    """

    def __init__(self, phrases: Iterable[tuple[str, T]]) -> None:
        self._root: _Node[T] = _Node()
        for order, (text, meaning) in enumerate(phrases):
            words = tuple(_phrase_key(word) for word in lexicon.fold(text).split())
            if not words:
                continue
            node = self._root
            for word in words:
                node = node.after(word)
            node.ends.append(((words[0][-1] == "*", -len(words), order), meaning))

    def at(self, keys: Sequence[str], start: int) -> tuple[T, int] | None:
        """What the longest phrase beginning at `start` stands for, and where it ends."""
        root = self._root
        if keys[start] not in root.words and not root.stems:
            return None  # most words begin no phrase at all
        found = self.all_at(keys, start)
        return found[0] if found else None

    def all_at(self, keys: Sequence[str], start: int) -> list[tuple[T, int]]:
        """Everything that a phrase beginning at `start` stands for, with where it ends."""
        found: list[tuple[_Rank, T, int]] = []
        for node in self._root.matching(keys[start]):
            _collect(node, keys, start + 1, found)
        if len(found) > 1:
            found.sort(key=lambda each: each[0])
        return [(meaning, end) for _, meaning, end in found]


_Rank = tuple[bool, int, int]  # whole first words before stems, longer phrases before shorter


class _Node(Generic[T]):
    """What may follow the words so far."""

    __slots__ = ("ends", "gap", "stems", "words")

    def __init__(self) -> None:
        self.words: dict[str, _Node[T]] = {}
        self.stems: dict[str, list[tuple[str, _Node[T]]]] = {}  # by their first letters
        self.gap: _Node[T] | None = None
        self.ends: list[tuple[_Rank, T]] = []

    def after(self, word: str) -> "_Node[T]":
        """The node that a word of a phrase leads to, made where there is none."""
        if word == "~":
            if self.gap is None:
                self.gap = _Node()
            return self.gap
        if word[-1] != "*":
            return self.words.setdefault(word, _Node())
        stem = word[:-1]
        stems = self.stems.setdefault(stem[: _STEM_LETTERS[1]], [])
        for known, node in stems:
            if known == stem:
                return node
        stems.append((stem, _Node()))
        return stems[-1][1]

    def matching(self, key: str) -> "list[_Node[T]]":
        """The nodes that a word of a message leads to."""
        word = self.words.get(key)
        found = [] if word is None else [word]
        if self.stems:
            for letters in range(_STEM_LETTERS[0], min(_STEM_LETTERS[1], len(key)) + 1):
                for stem, node in self.stems.get(key[:letters], ()):
                    if key.startswith(stem):
                        found.append(node)
        return found


def _collect(
    node: _Node[T], keys: Sequence[str], at: int, found: list[tuple[_Rank, T, int]]
) -> None:
    """Every phrase that goes on from a node, of which the words before `at` are read."""
    for rank, meaning in node.ends:
        found.append((rank, meaning, at))
    if at < len(keys) and (node.words or node.stems):
        for following in node.matching(keys[at]):
            _collect(following, keys, at + 1, found)
    if node.gap is not None:
        reached: set[int] = set()  # a word counts where it comes first
        for place in range(at, min(at + MAX_GAP_WORDS + 1, len(keys))):
            for following in node.gap.matching(keys[place]):
                if id(following) not in reached:
                    reached.add(id(following))
                    _collect(following, keys, place + 1, found)


def _phrase_key(word: str) -> str:
    if not word.endswith("*"):
        return key_of(word)
    stem = key_of(word[:-1])
    assert len(stem) >= _STEM_LETTERS[0], word
    return stem + "*"


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
