"""What a customer's message says: language, wishes, and the things to be quoted.

Keeps secret the grammar of how people write measures and orders. A message is read once
into tokens; each pass takes the tokens that it understands, the surest reading first, so
that a number is never used twice (a phone number is no thickness, the 5 of "10x5" no
number of sides). What can be read in more than one way becomes an `Unclear` with the
readings, for the dialogue to ask; it is never settled by a guess.

Pure: the same text, catalogue and hint give the same understanding, for any text, in time
linear in its length.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import phonenumbers

from agents.catalogue import Catalogue, Language
from agents.conversation import lexicon as lx
from agents.conversation.assembly import CORE, Event, assemble, size_of, sized_item
from agents.conversation.lexicon import key_of, keys
from agents.conversation.meaning import Hint, Intent, Item, Unclear, Understanding, Unknown
from agents.conversation.measures import (
    Measure,
    areas_of,
    count_of,
    in_metres,
    in_mm,
    sides_m,
    tidy,
)
from agents.conversation.passage import ENDS, Passage
from agents.conversation.reading import Token, read
from agents.conversation.vocabulary import MAX_UNKNOWN_WORDS, Phrases, Vocabulary, vocabulary_of


def understand(text: str, catalogue: Catalogue, hint: Hint | None = None) -> Understanding:
    """Read a message. Never raises, whatever the text; text is data and nothing else."""
    return _Reading(read(text), vocabulary_of(catalogue), catalogue, hint or Hint()).result()


# --- The passes ---------------------------------------------------------------------------


_NAME_CUES: Final = Phrases((phrase, phrase) for phrase in lx.NAME_CUES)
_PICK_UP: Final = Phrases((phrase, True) for phrase in lx.PICK_UP_CUES)
_WEAK_QUOTE: Final = lx.keys(
    "quiero quisiera querria necesito preciso necesitaria precisaria busco valor costo cost want "
    "need for like"
)
_ASKS_ANYWHERE: Final = frozenset(
    f"ask_{topic}"
    for topic in (
        "description", "compare", "products", "price_factors", "thicknesses", "colours",
    )
)  # fmt: skip
_SAME_AGAIN: Final = Phrases(
    (phrase, kind) for kind, phrases in lx.SAME_AGAIN.items() for phrase in phrases
)
_SIDES_SAID: Final = ("length", "width", "height")
_COPULA: Final = keys("es son era eran seria serian sea sean is it's was be should")
_LABELLING: Final = (
    _COPULA | {"de", ":", "=", "of", "unos", "a", "to"} | keys("en realidad actually")
)
_LETTERS: Final = {"e": "thickness", "l": "length", "a": "width"}  # "e=100 l=6 a=4"
_MAX_MEASURES: Final = 400  # numbers that are made sense of; no order has more
_MOST_ALTERNATIVES: Final = 6
_MOST_BETWEEN: Final = 6  # words between a number and the one that it takes the place of
_INCH_TOLERANCE: Final = Decimal("0.03")
_SAID: Final = keys("dije puse pase anote pedi said put")
_BUT: Final = keys("pero but")
_SHORT_ANSWER: Final = 3  # words
_SOFT: Final = frozenset({",", "y", "and", "sino", "que"})
_SO: Final = key_of("asi")
_FOR: Final = frozenset({"por", "x", "for", "to", "a"})
_KEEP: Final = [key_of("me"), key_of("quedo")]
_HAS: Final = keys("con tiene lleva hay with has")
_BARE_GAP: Final = frozenset({":", "=", "(", ",", "-", "x", "*"}) | lx.OF_KEYS | lx.ARTICLE_KEYS


class _Reading(Passage):
    """One message on its way to an Understanding."""

    def __init__(
        self, tokens: Sequence[Token], words: Vocabulary, catalogue: Catalogue, hint: Hint
    ) -> None:
        super().__init__(tokens, words)
        self.catalogue = catalogue
        self.hint = hint
        self.used = [False] * len(tokens)
        self.events: list[Event] = []
        self.product_places: set[int] = set()
        self.size_places: set[int] = set()
        self.core_sentences: set[int] = set()
        self.measures: list[Measure] = []
        self.phones: list[str] = []
        self.name: str | None = None
        self.removed: list[str] = []
        self.unwanted: tuple[Item, ...] = ()
        self.longer: list[tuple[str, Decimal]] = []
        self.places: int | None = None
        self.completes: int | None = None
        self.taken_out = {start for start, _, cue in self.cues if cue == "remove_it"}
        self.which: int | None = None
        self.copied: Item | None = None

    def result(self) -> Understanding:
        language = self._language()
        self._phones()
        self._name()
        self._numbers_of_other_things()
        self._products()
        self._measures()
        self._one_for_another()
        self._chains()
        self._sides_said_apart()
        self._areas()
        self._thicknesses_with_units()
        self._quantities()
        self._finishes()
        self._colours()
        self._anchors_and_freight()
        self._how_many()
        self._bare_numbers()
        self._metres_alone()
        self._numbers_left_over()
        self._of_each()
        self._the_same_again()
        self._told_by_its_number()
        self._set_unwanted_apart()
        about, about_thicknesses = self._set_questions_apart()
        self._set_apart_what_was_before()
        items, unclear, unknown, both_ways, sized_at = assemble(
            self, self.events, self.hint.product, self.copied
        )
        choice = self._choice(items)
        if choice is not None:
            unclear = tuple(each for each in unclear if each.options)
        topics = self._topics(bool(items))
        understanding = Understanding(
            language=language,
            items=items,
            unclear=unclear,
            unknown=unknown,
            topics=topics,
            about=about,
            about_thicknesses_mm=about_thicknesses,
            choice=choice,
            name=self.name,
            phones=tuple(self.phones),
            added=self._added(),
            removed=tuple(self.removed),
            of_all=self._of_all(),
            both_ways=both_ways,
            unwanted=self.unwanted,
            longer=tuple(self.longer),
            places=self.places,
            each=bool(self.said & lx.EACH_KEYS),
            which=self.which,
            others=self._others(sized_at),
            only_own=self._only_own(),
        )
        return replace(understanding, intents=self._intents(understanding))

    # - words and sentences -

    def _take(self, start: int, end: int) -> None:
        for at in range(max(start, 0), min(end, len(self.used))):
            self.used[at] = True

    def _language(self) -> Language:
        spanish = sum(
            1
            for key, raw in zip(self.keys, self.raw, strict=True)
            if key in lx.ES_KEYS or raw in lx.ES_KEYS
        )
        english = sum(
            1
            for key, raw in zip(self.keys, self.raw, strict=True)
            if key in lx.EN_KEYS or raw in lx.EN_KEYS
        )
        if spanish == english:
            return self.hint.language
        return "es" if spanish > english else "en"

    # - what is no measure -

    def _phones(self) -> None:
        at = 0
        while at < len(self.tokens):
            if self.tokens[at].kind != "number" or self.tokens[at].spelled:
                at += 1
                continue
            end, digits = at, ""
            plus = at > 0 and self.tokens[at - 1].text == "+"
            groups = 0
            while end < len(self.tokens) and len(digits) <= 15:
                token = self.tokens[end]
                if token.kind == "number" and not token.spelled and "/" not in token.text:
                    digits += "".join(char for char in token.text if char.isdigit())
                    groups += 1
                elif token.text not in ("-", "(", ")", "."):
                    break
                end += 1
            enough = 8 <= len(digits) <= 15
            looks = (
                plus or digits.startswith("0") or groups == 1 or digits.startswith(("598", "54"))
            )
            if enough and looks:
                phone = _phone(digits, plus)
                if phone is not None:
                    self.phones.append(phone)
                    self._take(at, end)
                elif groups == 1:
                    self._take(at, end)
            at = max(end, at + 1)

    def _name(self) -> None:
        for at in range(len(self.tokens)):
            found = _NAME_CUES.at(self.raw, at)
            if found is None:
                continue
            cue, end = found
            if self.key(end) in (":", "es", "is"):
                end += 1
            taken = self._name_at(end, needs_capital=cue in lx.NAME_CUES_NEED_CAPITAL)
            if taken is not None:
                self.name = " ".join(
                    self.tokens[each].text.capitalize() for each in range(end, taken)
                )
                self._take(at, taken)
                return
        if "nombre" in self.hint.asked and self.name is None:
            words = [token for token in self.tokens if token.kind == "word"]
            plain_words = all(
                token.kind == "word" or token.text in (".", "!", ",") for token in self.tokens
            )
            if plain_words and 1 <= len(words) <= 4 and self._name_at(0, needs_capital=False):
                end = self._name_at(0, needs_capital=False) or 0
                if all(self.tokens[each].kind == "mark" for each in range(end, len(self.tokens))):
                    self.name = " ".join(self.tokens[e].text.capitalize() for e in range(end))
                    self._take(0, end)

    def _name_at(self, start: int, needs_capital: bool) -> int | None:
        """Where the name ends that begins here, or None where none does."""
        end = start
        while end < min(start + 4, len(self.tokens)):
            token = self.tokens[end]
            if end > start and self._joins_names(end):
                end += 1
                continue
            capital = token.text[0].isupper()
            ordinary = token.key in lx.FILLER_KEYS or token.key in lx.NOT_NAME_KEYS
            ordinary = ordinary or self.keys[end] in lx.ACCEPT_KEYS  # "acpeto"
            known = token.key in self.words.known or token.word in self.words.known
            if token.kind != "word" or len(token.text) < 2 or len(token.text) > 20 or ordinary:
                break
            if end == start and (needs_capital and not capital):
                break
            # Blanco, Rosa, Casas are names too, where a capital says so.
            if known and not (capital and (end > start or not needs_capital)):
                break
            if end > start and not capital and end + 1 < len(self.tokens):
                follows = self.tokens[end + 1]
                if follows.kind != "mark" and follows.key not in lx.AND_KEYS:
                    break
            end += 1
        return end if end > start else None

    def _joins_names(self, at: int) -> bool:
        """The "del" of "Construcciones del Sur"."""
        after = self.tokens[at + 1] if at + 1 < len(self.tokens) else None
        joins = self.key(at) in ("de", "del", "la", "los")
        return joins and after is not None and after.kind == "word" and after.text[0].isupper()

    def _numbers_of_other_things(self) -> None:
        for at, token in enumerate(self.tokens):
            if token.kind != "number" or self.used[at]:
                continue
            before, after = self.key(at - 1), self.key(at + 1)
            if before in ("/", ":") and self._is_date_or_time(at):
                self._take(at - 2, at + 1)
            elif (
                (after in lx.OF_KEYS and self.key(at + 2) in lx.MONTH_KEYS)
                or after in lx.MONTH_KEYS
                or (before in lx.MONTH_KEYS and not token.spelled)
                or (before in lx.DAY_KEYS and not token.spelled)
                or after in lx.MONEY_KEYS
                or before in lx.MONEY_KEYS
                or after == "%"
                or (after == "por" and self.key(at + 2) == "siento")
                or after in lx.TIME_KEYS
                or (after in lx.COUNTED_ELSEWHERE_KEYS and not self._begins_a_list(at + 1))
                or (before == "las" and self.key(at - 2) in ("a", "al"))
                or before in lx.COUNTED_BEFORE_KEYS
                or (after in lx.ORDINAL_ENDINGS and self.tokens[at + 1].glued)
                or self._in_an_address(at)
                or self._in_an_id(at)
            ):
                self._take(at, at + 1)

    def _begins_a_list(self, at: int) -> bool:
        """ "isodec 100 medidas 10x5", "medidas: 10x5"."""
        return self.key(at) == "medidas" and self.key(at + 1) in ("#", ":", "=")

    def _is_date_or_time(self, at: int) -> bool:
        """Whether the number ends a "15/3" or "10:30"."""
        if at < 2 or not self.tokens[at].glued or not self.tokens[at - 1].glued:
            return False
        first, second = self.tokens[at - 2], self.tokens[at]
        if self.key(at + 1) in lx.UNITS_BY_KEY or first.value is None or second.value is None:
            return False
        if self.key(at - 1) == ":":
            return first.value <= 24 and len(second.text) == 2
        return first.value <= 31 and second.kind == "number"

    def _in_an_id(self, at: int) -> bool:
        """The 7 of "4.123.456-7", the 23 of "juan23@correo.com"."""
        token = self.tokens[at]
        if self.key(at + 1) == "@" and self.tokens[at + 1].glued:
            return True
        long = (
            at >= 2 and self.tokens[at - 2].kind == "number" and len(self.tokens[at - 2].text) > 5
        )
        return long and token.glued and self.key(at - 1) == "-" and self.tokens[at - 1].glued

    def _in_an_address(self, at: int) -> bool:
        after = self.key(at + 1)
        if after in lx.UNITS_BY_KEY or after in lx.TIMES_KEYS:
            return False
        before = self.key(at - 1)
        if before in (".", ":", "#"):
            before = self.key(at - 2)
        if before in lx.ADDRESS_KEYS:
            return True
        streets = ("kaye", "street", "ruta", "road", "abenida", "abda", "bulebar", "av", "bv")
        return any(
            self.key(at - back) in streets and all(
                self.is_unknown_word(at - between) for between in range(1, back)
            )
            for back in range(2, 5)
        )  # fmt: skip

    # - products -

    def _products(self) -> None:
        budget = MAX_UNKNOWN_WORDS
        at = 0
        while at < len(self.tokens):
            if self.used[at] or self.tokens[at].kind != "word":
                at += 1
                continue
            found = self.words.products.at(self.raw, at) or self.words.products.at(self.keys, at)
            if found is not None and self._not_wanted(at, found[1]):
                self._without_product(at, found[1], found[0])
                at = found[1]
                continue
            if found is not None:
                at = self._product(at, found[1], found[0])
                continue
            other = self.words.other_products.at(self.keys, at)
            if other is not None:
                said, end = other
                self._event(at, end, "product", {"product": ""}, unknown=Unknown("producto", said))
                at = end
                continue
            if budget and self._is_unknown_raw(at):
                budget -= 1
                end = self._product_like(at)
                if end:
                    at = end
                    continue
            at += 1
        self._products_by_a_word()
        self._only_one()
        self._one_product_for_another()

    def _only_one(self) -> None:
        """ "solo el isodec", of several things."""
        for event in self.events:
            product = event.values.get("product") if event.kind == "product" else None
            back = event.at - 1
            while self.key(back) in lx.ARTICLE_KEYS or self.key(back) in lx.WITH_KEYS:
                back -= 1
            only = self.key(back) in lx.ONLY_KEYS or self.keys[back - 1 : back + 1] == _KEEP
            if only and product in self.hint.products and len(self.hint.products) > 1:
                self.removed += (each for each in self.hint.products if each != product)

    def _one_product_for_another(self) -> None:
        """ "cambiá el eps por lana de roca", "lana de roca en vez del eps"."""
        named = [event for event in self.events if event.values.get("product")]
        for first, second in pairwise(named):
            gap = self.keys[first.end : second.at]
            if len(gap) > _MOST_BETWEEN:
                continue
            old = first if self.instead(first.at) else second if self.instead(second.at) else None
            if old is None and _FOR.intersection(gap) and self.has_cue("correction"):
                old = first
            having = [
                at
                for at, item in enumerate(self.hint.items)
                if old is not None and item.product == old.values["product"]
            ]
            if len(having) == 1:
                self.events = [event for event in self.events if event is not old]
                self.which = having[0] if self.hint.things > 1 else None

    def _without_product(self, at: int, end: int, product: str) -> None:
        self._take(at, end)
        taken_out = self.key(at - 1) in lx.REMOVE_KEYS or self.key(at - 2) in lx.REMOVE_KEYS
        if taken_out or product in self.hint.products:
            self.removed.append(product)

    def _not_wanted(self, at: int, end: int = 0) -> bool:
        """ "no quiero isodec", "sacale la lana de roca"; of several things, "sin la lana" and
        "la lana no"."""
        back = at - 1
        while back >= 0 and self.key(back) in lx.ARTICLE_KEYS:
            back -= 1
        if self.key(back) in lx.REMOVE_KEYS:
            return True
        if len(self.hint.products) > 1 and (self.key(back) == "sin" or self._denied_behind(end)):
            return True
        verb = self.key(back) in lx.NOT_WANTED_VERB_KEYS
        return verb and self.key(back - 1) in lx.NOT_KEYS

    def _is_unknown_raw(self, at: int) -> bool:
        token = self.tokens[at]
        return token.kind == "word" and token.key not in lx.FILLER_KEYS and (
            token.key not in self.words.known or len(token.key) <= 3
        )  # fmt: skip

    def _product_like(self, at: int) -> int:
        """A misspelt name of one to four words; gives where it ends, 0 if there is none."""
        best: tuple[int, str, bool] | None = None
        joined = ""
        for size in range(1, 5):
            place = at + size - 1
            if place >= len(self.tokens) or self.tokens[place].kind != "word" or self.used[place]:
                break
            if size > 1 and self.words.products.at(self.keys, place):
                break  # "ponerle isodec": the name stands by itself
            joined += self.tokens[place].word
            if size == 1 and len(joined) < 5:
                continue
            if size > 1 and self.tokens[place].key in lx.UNITS_BY_KEY:
                break
            guess = self.words.product_like(key_of(joined))
            if guess is not None and (guess.sure or best is None):
                best = (place + 1, guess.product, guess.sure)
                if guess.sure and size > 1:
                    break
        if best is None:
            return 0
        end, product, sure = best
        if sure:
            return self._product(at, end, product)
        self._guess(at, end, product)
        return end

    def _products_by_a_word(self) -> None:
        """ "lana" for lana de roca: only as an answer, or to ask whether that is meant."""
        named = {event.values["product"] for event in self.events if event.kind == "product"}
        for at in range(len(self.tokens)):
            product = None if self.used[at] else self.words.product_word(self.keys[at])
            if product is None or product in named:
                continue
            if product in self.hint.products:
                if self._not_wanted(at, at + 1):
                    self._without_product(at, at + 1, product)
                else:
                    self._product(at, at + 1, product)
            elif "producto" in self.hint.asked and not named:
                self._product(at, at + 1, product)
            else:
                self._guess(at, at + 1, product)
            named.add(product)

    def _product(self, at: int, end: int, product: str) -> int:
        self._event(at, end, "product", {"product": product})
        return end

    def _guess(self, at: int, end: int, product: str) -> None:
        self._unclear(at, end, Unclear("producto", (Item(product=product),)))

    def _event(
        self,
        at: int,
        end: int,
        kind: str,
        values: dict[str, Any] | None = None,
        unclear: Unclear | None = None,
        unknown: Unknown | None = None,
    ) -> None:
        self.events.append(Event(at, end, kind, values or {}, unclear, unknown))
        if kind == "product" or (unclear is not None and unclear.field == "producto"):
            self.product_places.update(range(at, end))
        elif kind == "size":
            self.size_places.update(range(at, end))
        if kind in CORE:
            self.core_sentences.add(self.sentence[at])
        self._take(at, end)

    def _unclear(self, at: int, end: int, unclear: Unclear) -> None:
        self._event(at, end, "unclear", unclear=unclear)

    # - measures -

    def _measures(self) -> None:
        self.labels_first = self._labels_that_come_first()
        self.said_in_centimetres = False  # "4 metros 20 x 3 metros 10"
        at = 0
        while at < len(self.tokens) and len(self.measures) < _MAX_MEASURES:
            measure = self._measure_at(at)
            if measure is None:
                at += 1
                continue
            sign = self._longer_or_shorter(measure)
            self._label(measure)
            at = max(measure.end, at + 1)
            if sign and self._take_longer(measure, sign):
                continue
            self.measures.append(measure)

    def _longer_or_shorter(self, measure: Measure) -> int:
        """1 for "2 metros más", -1 for "restale 2 metros", 0 for a size."""
        if measure.unit not in ("m", "cm") or not self.hint.things:
            return 0
        after, before = self.key(measure.end), self.key(measure.start - 1)
        for words, sign in ((lx.LONGER_KEYS, 1), (lx.SHORTER_KEYS, -1)):
            if after in words and after in ("mas", "menos", "more", "less"):
                measure.end += 1
                return sign
            if before in words:
                return sign
        return 0

    def _take_longer(self, measure: Measure, sign: int) -> bool:
        """Whether the measure changes a side by so much, and not to so much."""
        sides = {lx.SIDES[key] for key in self.said if key in lx.SIDES}
        if measure.side is None and len(sides) == 1:
            measure.side = sides.pop()  # "el largo quedó corto, sumale medio metro"
        metres = in_metres(measure, default="m")
        if measure.side not in ("length", "width") or len(metres) != 1:
            return False
        self.longer.append((f"{measure.side}_m", sign * metres[0]))
        self._take(measure.start - 1, measure.end)
        return True

    def _labels_that_come_first(self) -> set[int]:
        """The places of the labels in "largo 10 ancho 5", but not in "10 largo 5 ancho"."""
        first: set[int] = set()
        labels = [at for at, key in enumerate(self.keys) if key in lx.SIDES]
        for index, at in enumerate(labels):
            before = self._number_before_label(at)
            if before is not None and index and labels[index - 1] in first:
                before = None if labels[index - 1] < before else before  # it has its label
            if not self._leads(at):
                continue
            if before is None or self._thickness_before_label(before):
                following = labels[index + 1] if index + 1 < len(labels) else None
                last = before is not None and following is not None and (
                    self._number_before_label(following) is not None
                    and not self._leads(following)
                )  # fmt: skip
                if not last:  # "isodec 10 largo 5 ancho"
                    first.add(at)
        return first

    def _leads(self, at: int) -> bool:
        """Whether a number comes after the label at a place."""
        after = at + 1
        after += self.key(after) == "," and self.key(after + 1) in _COPULA
        while after < at + 5 and self.key(after) in _LABELLING:
            after += 1
        noun = self.key(after + 1)
        counts = noun in lx.PIECE_KEYS or (noun in lx.PLACE_KEYS and noun not in lx.SIDES)
        return self.key(after) == "#" and not counts

    def _number_before_label(self, at: int) -> int | None:
        """The number right before a label, as in "10 m de largo"."""
        before = at - 1
        before -= self.key(before) in lx.OF_KEYS
        if self.key(before) in lx.UNITS_BY_KEY:
            before -= 1
        return before if self.key(before) == "#" else None

    def _thickness_before_label(self, at: int) -> bool:
        value, unit = self.tokens[at].value, lx.UNITS_BY_KEY.get(self.key(at + 1))
        if value is None:
            return False
        before = at - 1
        while before > at - 4 and self.key(before) in _LABELLING:
            before -= 1
        if self.key(before) in lx.THICKNESS_KEYS:
            return True
        if unit in ("mm", "cm"):
            return self._made(in_mm(value, unit))
        if unit is not None:
            return False
        bare = Measure(at, at + 1, (value,))
        return self._is_thickness_of_product(bare)

    def _measure_at(self, at: int) -> Measure | None:
        token = self.tokens[at]
        if self.used[at]:
            return None
        if token.kind == "word":
            # "metro y medio", "medio metro"
            if lx.UNITS_BY_KEY.get(token.key) == "m" and self.key(at + 1) in lx.AND_KEYS:
                part = lx.PARTS.get(self.key(at + 2))
                if part is not None:
                    return Measure(at, at + 3, (1 + Decimal(part),), "m")
            part = lx.PARTS.get(token.key)
            unit = at + 2 if self.key(at + 1) in ("a", "un") else at + 1
            if part is not None and lx.UNITS_BY_KEY.get(self.key(unit)) == "m":
                return Measure(at, unit + 1, (Decimal(part),), "m")
            return None
        if token.kind != "number":
            return None
        measure = Measure(at, at + 1, token.values)
        measure.of = self.key(at - 1) in lx.OF_KEYS
        self._read_unit(measure)
        if self.key(measure.end) in lx.AND_KEYS and self.key(measure.end + 1) in lx.ODD_KEYS:
            measure.values, measure.end = (), measure.end + 2  # "4 y pico"
        return measure

    def _read_unit(self, measure: Measure) -> None:
        after = self.key(measure.end)
        unit = lx.UNITS_BY_KEY.get(after)
        apart = after == "metro" and measure.value != 1 and self.key(measure.end + 1) == "y"
        if apart and self.key(measure.end + 2) in lx.PARTS and self._after_product(measure):
            return  # "isodec 100 metro y medio por 3"
        if unit is not None:
            measure.unit = unit
            measure.end += 1
            if unit == "m":
                self._read_after_metres(measure)
            if measure.unit == "m2":
                self._read_after_square_metres(measure)
            elif unit == "cm" and measure.value is not None and self.key(measure.end) == "y":
                part = lx.PARTS.get(self.key(measure.end + 1))
                if part is not None:  # "2 cm y medio"
                    measure.values = (measure.value + Decimal(part),)
                    measure.end += 2
        elif after in lx.SQUARE_BEFORE_KEYS and lx.UNITS_BY_KEY.get(self.key(measure.end + 1)):
            inner = lx.UNITS_BY_KEY[self.key(measure.end + 1)]
            measure.unit = "m2" if inner == "m" else "other"
            measure.end += 2
        elif after in lx.SQUARE_KEYS and not (
            self.key(measure.end + 1) == "de" and self._is_thickness_of_product(measure)
        ):  # but "isodec 100 cuadrado de 4x4"
            measure.unit = "m2"
            measure.end += 1
        elif after == "in" and self.key(measure.end + 1) in lx.THICKNESS_KEYS:
            measure.unit = "in"
            measure.end += 1
        elif after in ("'", "’"):
            twice = self.key(measure.end + 1) == after
            measure.unit = "in" if twice else "ft"
            measure.end += 2 if twice else 1
        elif after in ('"', "”", "″") and self.keys.count(after) == 1:  # else it quotes
            measure.unit = "in"
            measure.end += 1

    def _read_after_metres(self, measure: Measure) -> None:
        """ "50 metros cuadrados", "6 metros y medio", "2 metros con 40", "2 metros 40 por"."""
        after, second = self.key(measure.end), self.key(measure.end + 1)
        if after in lx.SQUARE_KEYS or (after == "2" and self.tokens[measure.end].glued):
            measure.unit, measure.end = "m2", measure.end + 1
            return
        if after in lx.LINEAR_KEYS:
            measure.linear, measure.end = True, measure.end + 1
            return
        if measure.value is None:
            return
        if self._made(measure.value) and self._after_product(measure):
            return  # "isodec 100 m 10x5": rather a slip of the finger
        part = lx.PARTS.get(second) if after in lx.AND_KEYS else None
        if part is not None:
            measure.values = (measure.value + Decimal(part),)
            measure.end += 2
            return
        with_ = after in ("kon", "con")
        skip = 1 if with_ or after in lx.AND_KEYS else 0
        place = measure.end + skip
        if place >= len(self.tokens) or self.tokens[place].kind != "number" or self.used[place]:
            return
        centimetres = self.tokens[place].value
        whole = centimetres is not None and centimetres == centimetres.to_integral_value()
        if not whole or centimetres is None or not 10 <= centimetres <= 99:
            return
        if measure.value != measure.value.to_integral_value():
            return  # "1,1 m y 12 x 8" are two sizes
        following = self.key(place + 1)
        thickness = not with_ and self._made(centimetres * 10)
        if lx.UNITS_BY_KEY.get(following) == "cm" and thickness:
            return  # "8 m 15 cm" is rather a side and a thickness
        if lx.UNITS_BY_KEY.get(following) == "cm":
            measure.values = (measure.value + centimetres / 100,)
            measure.end = place + 2
        elif following not in lx.UNITS_BY_KEY and (
            (with_ and following not in lx.SIDE_KEYS)
            or following in lx.TIMES_KEYS
            or (not skip and (self.tokens[place].glued or self.said_in_centimetres))
            or (self._side_after(place + 1) or ("",))[0] in ("length", "width")
        ):
            measure.values = (measure.value + centimetres / 100,)
            measure.end = place + 1
            self.said_in_centimetres = True

    def _read_after_square_metres(self, measure: Measure) -> None:
        """ "64 m2 con 50": said like money, of square metres."""
        place = measure.end + 1
        if self.key(measure.end) != "con" or self.key(place) != "#" or measure.value is None:
            return
        part, follows = self.tokens[place].value, self.key(place + 1)
        other = follows in lx.UNITS_BY_KEY or follows in lx.OF_KEYS or self.tokens[place].glued
        if part is not None and 10 <= part <= 99 and part == int(part) and not other:
            measure.values = (measure.value + part / 100,)
            measure.end = place + 1

    def _side_after(self, at: int) -> tuple[str, int] | None:
        """ "de largo", "largo", "wide" after a number: which side, and where it ends."""
        place = at
        of = self.key(place) in lx.OF_KEYS
        if of:
            place += 1
        if self.key(place) in lx.ARTICLE_KEYS:
            place += 1
        key = self.key(place)
        if place < len(self.used) and not self.used[place]:
            if key in lx.SIDES:
                return lx.SIDES[key], place + 1
            if key in lx.THICKNESS_KEYS:
                return "thickness", place + 1
            if key in lx.AREA_KEYS and of:
                return "area", place + 1
        return None

    def _label(self, measure: Measure) -> None:
        """What the measure is of, said before it ("largo: 10") or after it ("10 de largo")."""
        place = measure.start - 1
        letter = self.tokens[place - 1].text.lower() if self.key(place) == "=" else ""
        if letter in _LETTERS:
            measure.side = _LETTERS[letter]
            self._take(place - 1, measure.start)
            return
        for _ in range(4):
            apart = self.key(place) == "," and self.key(place + 1) in _COPULA
            if self.key(place) in _LABELLING or apart:  # "medí mal el ancho, es 4,80"
                place -= 1
        key = self.key(place)
        label = None
        if key in lx.SIDES and place not in self.labels_first:
            key = ""
        if place >= 0 and not self.used[place] and self.same_sentence(place, measure.start):
            label = lx.SIDES.get(key) or (
                "thickness" if key in lx.THICKNESS_KEYS else "area" if key in lx.AREA_KEYS else None
            )
        after = self._side_after(measure.end)
        if after is not None:
            of_next = after[0] in _SIDES_SAID and after[1] - 1 in self.labels_first
            if of_next or self._is_of_the_next(measure, after[1]):
                after = None
        if label is not None and not (after is not None and self.key(measure.end) in lx.OF_KEYS):
            measure.side = label
            self._take(place, measure.start)
        elif after is not None:
            measure.side, end = after
            self._take(measure.end, end)
            measure.end = end

    def _is_of_the_next(self, measure: Measure, end: int) -> bool:
        """The "ancho" of "isodec 125 mm de ancho 1,1" and of "125 mm. largo: 4 m"."""
        of_next = self.key(end) == "#" or (self.key(end) in (":", "=") and self.key(end + 1) == "#")
        small = measure.unit in ("mm", "cm") and measure.value is not None
        small = small and self.key(end - 1) in lx.SIDES
        return of_next and small and self._made(in_mm(measure.value or Decimal(0), measure.unit))

    def _one_for_another(self) -> None:
        """ "no son 10, son 12", "60 no 50", "12 en vez de 10": of what is known, what had that
        value gets another."""
        if not self.hint.items:
            return
        for first, second in pairwise(self.measures):
            if second.start - first.end > _MOST_BETWEEN or self._goes_on_as_size(second):
                continue
            gap = self.keys[first.end : second.start]
            between = {key for key in gap if key not in _COPULA and key not in lx.OF_KEYS}
            back = first.start - 1
            while self.key(back) in _COPULA or self.key(back) in lx.OF_KEYS:
                back -= 1
            denied = self.key(back) in ("no", "not") or self.instead(first.start)
            said = self.key(back) in _SAID and bool(_BUT & between)
            if gap and (denied or said) and between <= _BUT | _SOFT:
                self._replace_value(first, second)
            elif self.instead(second.start) or between - _SOFT in ({"no"}, {"not"}):
                self._replace_value(second, first)

    def _goes_on_as_size(self, measure: Measure) -> bool:
        around = {self.key(measure.start - 1), self.key(measure.end)}
        return bool(around & lx.TIMES_KEYS)

    def _replace_value(self, old: Measure, new: Measure) -> None:
        unit, side = new.unit or old.unit, new.side or old.side
        news = self._values_as(new, unit)
        olds = self._values_as(old, unit)
        found = [
            (item, name)
            for item in self.hint.items
            for name in olds
            if getattr(item, name) == olds[name]
            and name in news
            and (side is None or name.startswith(side))
        ]
        if len(found) > 1:  # which of them it was is for the customer to say
            self._take(old.start, old.end)
            self._take(new.start, new.end)
        if len(found) != 1:
            return
        item, name = found[0]
        if len(self.hint.items) > 1:
            self.which = self.hint.items.index(item)
        kind = "thickness" if name == "thickness_mm" else "size"
        self._event(new.start, new.end, kind, {name: news[name]})
        self._take(old.start, old.end)

    def _values_as(self, measure: Measure, unit: str | None) -> dict[str, Any]:
        """What a number would be as each field of an item that it can be said of."""
        value = measure.value
        if value is None:
            return {}
        values: dict[str, Any] = {}
        if unit in (None, "mm", "cm"):
            values["thickness_mm"] = in_mm(value, unit)
        metres = in_metres(replace(measure, unit=unit), default="m")
        if unit in (None, "m", "cm") and len(metres) == 1:
            values |= {"length_m": metres[0], "width_m": metres[0]}
        if unit in (None, "m2"):
            values["area_m2"] = value
        count = count_of(value)
        if unit is None and count is not None and count > 1:
            values["quantity"] = count
        return values

    # - sizes -

    def _chains(self) -> None:
        self.thicknesses_said = sum(map(self._may_be_thickness, self.measures))
        at = 0
        while at < len(self.measures):
            chain = [self.measures[at]]
            while at + len(chain) < len(self.measures) and self._times_between(
                chain[-1], self.measures[at + len(chain)]
            ):
                chain.append(self.measures[at + len(chain)])
            if len(chain) > 1:
                self._chain(chain)
            at += len(chain)

    def _times_between(self, first: Measure, second: Measure) -> bool:
        gap = range(first.end, second.start)
        if not 1 <= len(gap) <= 3 or first.unit == "m2" or second.unit == "other":
            return False
        if second.unit == "m2" and (first.unit is not None or self._is_thickness_of_product(first)):
            return False  # but "10 x 5 m2" is a size
        if second.side == "area" or first.side == "thickness":
            return False
        times = [at for at in gap if self.key(at) in lx.TIMES_KEYS]
        rest = [self.key(at) for at in gap if self.key(at) not in lx.TIMES_KEYS]
        if len(times) != 1 or any(key not in ("de", "unos", "los", "el", "of") for key in rest):
            return False
        if any(self.used[at] for at in (first.start, second.start)):
            return False
        if first.side == "area":
            first.side = None  # "una superficie de 10 metros por 5"
        return True

    def _chain(self, chain: list[Measure]) -> None:
        start, end = chain[0].start, chain[-1].end
        if self._is_taken_off(start):
            self._event(start, end, "less", unclear=Unclear("dimensiones"))
            return
        thickness: Decimal | None = None
        quantity: int | None = None
        if len(chain) == 2 and chain[1].unit == "m" and self._first_is_thickness(chain):
            value = chain[0].value or Decimal(0)
            self._event(
                start, chain[0].end, "thickness", {"thickness_mm": in_mm(value, chain[0].unit)}
            )
            return  # "100 mm x 10 m": of the size, one side
        if len(chain) == 3 and self._first_is_thickness(chain):
            value = chain[0].value or Decimal(0)
            self._event(
                start, chain[0].end, "thickness", {"thickness_mm": in_mm(value, chain[0].unit)}
            )
            chain = chain[1:]
            start = chain[0].start
        if len(chain) == 3:
            last = chain[2]
            thickness = self._third_as_thickness(chain)
            if thickness is not None:
                chain = chain[:2]
            elif last.unit is None and self.key(last.end) in lx.PIECE_KEYS:
                quantity = count_of(last.value)
                end += 1
                chain = chain[:2]
            elif self._times_so_many(last) and count_of(last.value) is not None:
                quantity = count_of(last.value)
                chain = chain[:2]
        if len(chain) != 2 or self._negative(start):
            self._unclear(start, end, Unclear("dimensiones"))
            return
        options = sides_m(chain)
        if thickness is None and self._may_begin_with_thickness(chain):
            metres = in_metres(chain[1], default="m")
            self._unclear(start, end, Unclear("dimensiones", (
                Item(length_m=options[0][0], width_m=options[0][1]),
                Item(thickness_mm=chain[0].value, length_m=metres[-1]),
            )))  # fmt: skip
            return
        items = [
            Item(length_m=length, width_m=width, quantity=quantity) for length, width in options
        ]
        if any(each.linear for each in chain) or len(items) != 1:
            self._unclear(start, end, Unclear("dimensiones", tuple(items)))
        else:
            first, second = options[0]
            if chain[0].side in ("width", "height") and chain[1].side not in ("width", "height"):
                first, second = second, first
            self._event(start, end, "size", size_of(first, second, quantity))
        if thickness is not None:
            self._event(end - 1, end, "thickness", {"thickness_mm": thickness})

    def _is_taken_off(self, start: int) -> bool:
        """ "menos una ventana de 2x1": the customer knows what is left, we do not."""
        for at in range(start - 1, max(start - 6, -1), -1):
            if self.tokens[at].kind == "mark":
                return False  # "te falta un cero, es 100x5"
            opening = self.key(at + 1) in lx.OPENING_KEYS  # "menos 2 ventanas de 1x1"
            if not self.same_sentence(at, start) or (
                (self.used[at] or self.key(at) == "#") and not opening
            ):
                return False
            if opening and self.key(at) in lx.ONE_KEYS | {"#"}:
                return self.key(at - 1) in _HAS or any(e.kind == "size" for e in self.events)
            if self.key(at) in lx.LESS_KEYS:
                # but "más o menos 10x5", "me falta 10x5"
                return self.key(at - 1) not in lx.OR_KEYS | {"me", "nos"}
        return False

    def _negative(self, start: int) -> bool:
        return (
            self.key(start - 1) == "-"
            and self.tokens[start].glued
            and not self.tokens[start - 1].glued
        )

    def _first_is_thickness(self, chain: list[Measure]) -> bool:
        """ "isodec 100mm x 10m x 5m", "isodec 100 x 10 x 5"."""
        first = chain[0]
        if first.value is None or not self._made(in_mm(first.value, first.unit)):
            return False
        if first.unit in ("mm", "cm") and (len(chain) == 3 or chain[1].unit == "m"):
            return all(each.unit not in ("mm", "cm") for each in chain[1:])
        return len(chain) == 3 and first.unit is None and self._after_product(first)

    def _times_so_many(self, last: Measure) -> bool:
        """ "4x3 x2": the space says that the last is no side."""
        times = last.start - 1
        apart = self.key(times) == "x" and not self.tokens[times].glued
        return apart and last.unit is None and self.tokens[last.start].glued

    def _may_begin_with_thickness(self, chain: list[Measure]) -> bool:
        """ "isodec 100 x 6": 100 m by 6, or 100 mm and 6 m long? Where no other thickness is
        said, both are possible."""
        first = chain[0]
        if first.unit is not None or first.value is None or not self._made(first.value):
            return False
        if not self._after_product(first):
            return False
        return self.thicknesses_said == sum(self._may_be_thickness(each) for each in chain)

    def _may_be_thickness(self, measure: Measure) -> bool:
        bare = measure.unit is None and measure.value is not None and self._made(measure.value)
        return bare or measure.unit in ("mm", "cm") or measure.side == "thickness"

    def _third_as_thickness(self, chain: list[Measure]) -> Decimal | None:
        """ "10x5x100mm", "10 x 5 x 0,10": the third is a thickness where it can be nothing else."""
        first, second, third = chain
        value = third.value
        if value is None:
            return None
        if third.unit in ("mm", "cm"):
            small = all(each.value is not None and each.value <= 60 for each in (first, second))
            return in_mm(value, third.unit) if small or first.unit or second.unit else None
        if third.side == "thickness" or (third.unit is None and self._made(value)):
            return value
        if third.unit in (None, "m") and value < 1 and self._made(value * 1000):
            return tidy(value * 1000)
        return None

    def _sides_said_apart(self) -> None:
        """ "10 de largo y 5 de ancho", "ancho 5, largo: 10"."""
        self._heights()
        for measure in self.measures:
            if self.used[measure.start] or measure.side not in ("length", "width"):
                continue
            meters = in_metres(measure, default="m")
            name = f"{measure.side}_m"
            if len(meters) == 1 and measure.unit not in ("m2", "other"):
                kind = "size"
                self._event(measure.start, measure.end, kind, {name: meters[0]})
            else:
                self._unclear(measure.start, measure.end, Unclear("dimensiones"))

    def _heights(self) -> None:
        """A wall's height is one of its sides; beside both others it is the third of a room,
        of which a roof has none, and what else is meant has to be asked."""
        free = [each for each in self.measures if not self.used[each.start]]
        heights = [each for each in free if each.side == "height"]
        widths = [each for each in free if each.side == "width"]
        lengths = [each for each in free if each.side == "length"]
        in_full = bool(widths and lengths) or any(
            event.kind == "size" and len(event.values) >= 2 for event in self.events
        )
        for height in heights:
            if not in_full:
                height.side = "width"
                if widths and not lengths:
                    widths[0].side = "length"
            elif self.said & lx.ROOF_KEYS:
                self._take(height.start, height.end)
            else:
                self._event(height.start, height.end, "less", unclear=Unclear("dimensiones"))

    def _areas(self) -> None:
        self._areas_left_out()
        for at, measure in enumerate(self.measures):
            if self.used[measure.start]:
                continue
            if measure.unit == "other":
                self._unclear(measure.start, measure.end, Unclear("dimensiones"))
                continue
            if measure.unit == "m" and measure.side is None and (other := self._range_before(at)):
                self._unclear(other.start, measure.end, Unclear("dimensiones"))
                continue
            if measure.unit != "m2" and measure.side != "area":
                continue
            if self._is_taken_off(measure.start):
                self._event(measure.start, measure.end, "less", unclear=Unclear("dimensiones"))
                continue
            areas = areas_of(measure)
            other = self._range_before(at)
            if other is not None:
                self._take(other.start, other.end)
                areas = (*areas_of(other), *areas)
            if len(areas) == 1 and self._is_unit_price(measure):
                self._take(measure.start, measure.end)
            elif len(areas) == 1:
                self._event(measure.start, measure.end, "size", {"area_m2": areas[0]})
            else:
                options = tuple(Item(area_m2=area) for area in areas)
                self._unclear(measure.start, measure.end, Unclear("dimensiones", options))

    def _areas_left_out(self) -> None:
        """ "20 m2 de isodec y 30 de lana", "20m2 isodec y 30 de lana": square metres again."""
        squared = False
        first = min(self.product_places, default=len(self.tokens))
        for index, measure in enumerate(self.measures):
            of_product = self.key(measure.end) in ("de", "of") and any(
                self._starts_product(at) for at in (measure.end + 1, measure.end + 2)
            )
            if measure.unit == "m2":
                squared = True
            elif measure.start <= first:
                continue  # "100 m2 de 100 de isodec": no other product yet
            elif of_product and squared and measure.unit is None and not self.used[measure.start]:
                # But not "20 m2 de isodec y 3 de lana de 2x1".
                after = self.measures[index + 1 : index + 4]
                if not any(self._in_size(each.start) for each in after):
                    measure.unit = "m2"

    def _is_unit_price(self, measure: Measure) -> bool:
        """ "el precio de 1 m2", "cuánto sale un metro cuadrado": asks for the price of one."""
        return measure.value == 1 and (
            self.tokens[measure.start].spelled or self.key(measure.start - 1) in ("x", "por", "per")
        )

    def _range_before(self, at: int) -> Measure | None:
        """ "entre 50 y 60 m2", "50 o 60 m2", "50/60 m2": the other end of the range."""
        if at == 0:
            return None
        measure, other = self.measures[at], self.measures[at - 1]
        gap = [self.key(place) for place in range(other.end, measure.start)]
        between = self.key(other.start - 1) in lx.RANGE_KEYS
        ranged = gap in (["o"], ["a"], ["-"], ["u"], ["or"], ["to"], ["/"]) or (
            between and gap in (["y"], ["and"])
        )
        if gap == ["-"] and not self.tokens[other.end].glued:
            ranged = ranged and not self._is_thickness_of_product(other)  # "isodec 50 - 60 m2"
        free = not self.used[other.start] and other.side is None
        if ranged and free and other.unit in (None, "m", "m2"):
            return other
        return None

    # - thickness -

    def _thicknesses_with_units(self) -> None:
        for measure in self.measures:
            if self.used[measure.start] or measure.value is None:
                continue
            value = measure.value
            if self._is_of_a_wall(measure):
                self._take(measure.start, measure.end)
            elif measure.side == "thickness":
                self._labelled_thickness(measure, value)
            elif measure.unit in ("mm", "cm", "in") and measure.side is None:
                thickness = in_mm(value, measure.unit)
                near = self._nearly_made(thickness) if measure.unit == "in" else None
                if near is not None:
                    option = Item(thickness_mm=near)
                    self._unclear(measure.start, measure.end, Unclear("espesor", (option,)))
                elif thickness <= 500:
                    self._event(
                        measure.start, measure.end, "thickness", {"thickness_mm": thickness}
                    )
                else:
                    self._unclear(measure.start, measure.end, Unclear("dimensiones"))
            elif measure.unit == "m" and measure.side is None and self._made(value * 1000):
                thickness = tidy(value * 1000)  # "de 0,10 m"
                self._event(measure.start, measure.end, "thickness", {"thickness_mm": thickness})

    def _is_of_a_wall(self, measure: Measure) -> bool:
        """ "una losa de 12 cm": what is there already has a thickness of its own."""
        near = {self.key(measure.start - 1), self.key(measure.start - 2)}
        if measure.unit not in ("mm", "cm") or not measure.of or not near & lx.WALL_KEYS:
            return False
        made = self._made(in_mm(measure.value or Decimal(0), measure.unit))
        return not made or self.thicknesses_said > 1

    def _nearly_made(self, thickness: Decimal) -> Decimal | None:
        """ "4 pulgadas" is what is sold as 100 mm."""
        near = min(self.words.thicknesses_mm, key=lambda made: abs(made - thickness), default=0)
        return Decimal(near) if abs(near - thickness) <= near * _INCH_TOLERANCE else None

    def _labelled_thickness(self, measure: Measure, value: Decimal) -> None:
        if measure.unit == "m" or (measure.unit is None and value < 1):
            value = tidy(value * 1000)  # "0,10 de espesor"
        elif measure.unit is not None:
            value = in_mm(value, measure.unit)
            near = self._nearly_made(value) if measure.unit == "in" else None
            if near is not None:
                option = Item(thickness_mm=near)
                self._unclear(measure.start, measure.end, Unclear("espesor", (option,)))
                return
        elif value * 10 in self.words.thicknesses_mm and value not in self.words.thicknesses_mm:
            option = Item(thickness_mm=tidy(value * 10))
            self._unclear(measure.start, measure.end, Unclear("espesor", (option,)))
            return
        self._event(measure.start, measure.end, "thickness", {"thickness_mm": value})

    def _bare_numbers(self) -> None:
        """Numbers without a unit: a thickness where they can be nothing else."""
        free = [m for m in self.measures if not self.used[m.start] and m.side is None]
        sized = any(event.kind == "size" for event in self.events)
        thick = any(event.kind == "thickness" for event in self.events)
        if "dimensiones" in self.hint.asked and not sized:
            told: list[Measure] = []
            open_to: list[Measure] = []
            for measure in free:
                (told if self._spoken_for(measure) else open_to).append(measure)
            free = told + self._bare_sides(open_to, thick)
        for measure in free:
            if self.used[measure.start] or measure.unit is not None or measure.value is None:
                continue
            self._bare_thickness(measure)

    def _bare_sides(self, free: list[Measure], thick: bool) -> list[Measure]:
        """Answers to the question for the size: "10 y 5", "5", "100 10 5"."""
        free = [each for each in free if each.unit in (None, "m")]
        asked_thickness = "espesor" in self.hint.asked and not thick
        sides = list(free)
        if asked_thickness and len(sides) == 3 and sides[0].value in self.words.thicknesses_mm:
            sides = sides[1:]
        elif asked_thickness and len(sides) != 2:
            return free
        elif asked_thickness and any(each.unit is None for each in sides):
            return [each for each in free if each.of]
        if len(sides) == 2:
            options = sides_m(sides)
            if len(options) == 1 and self._near(sides[0], sides[1]):
                values = size_of(*options[0], None)
                self._event(sides[0].start, sides[1].end, "size", values)
                return [each for each in free if each not in sides]
        if len(sides) == 1 and self._completes_a_length(sides[0]):
            return []
        if len(sides) == 1 and not asked_thickness and not sides[0].of:
            metres = in_metres(sides[0], default="m")
            if self.hint.missing_side and len(metres) == 1:
                self._event(
                    sides[0].start, sides[0].end, "size", {f"{self.hint.missing_side}_m": metres[0]}
                )
            elif len(metres) == 1:
                self._area_or_length(sides[0], metres[0])
            return []
        return free

    def _completes_a_length(self, measure: Measure) -> bool:
        """ "por 5", or "5", to "do you mean 10 m² or 10 m long?"."""
        lengths = [
            at
            for at, option in enumerate(self.hint.options)
            if option.length_m is not None and option.width_m is None
        ]
        metres = in_metres(measure, default="m")
        if len(lengths) != 1 or len(metres) != 1 or measure.linear:
            return False
        if metres[0] == self.hint.options[lengths[0]].length_m:
            return False
        self.completes = lengths[0]
        self._event(measure.start, measure.end, "size", {"width_m": metres[0]})
        return True

    def _how_many(self) -> None:
        """An answer to the question how many there are: "5", "son cinco", "uno solo"."""
        if "cantidad" not in self.hint.asked or any(e.kind == "size" for e in self.events):
            return
        free = [
            each
            for each in self.measures
            if not (self.used[each.start] or each.unit or each.side)
            and count_of(each.value) is not None
            and not ("espesor" in self.hint.asked and self._made(each.value or Decimal(0)))
        ]
        if len(free) == 1:
            count = count_of(free[0].value)
            self._event(free[0].start, free[0].end, "size", {"quantity": count})
        elif not self.measures and self.said & lx.ONE_KEYS and self.words_said <= _SHORT_ANSWER:
            self._event(0, 1, "size", {"quantity": 1})

    def _of_each(self) -> None:
        """ "4x3 cada uno", and how many there are is not said: of the only thing."""
        sizes = [event for event in self.events if event.kind == "size"]
        named = {event.values.get("product") for event in self.events if event.kind == "product"}
        thick = [event for event in self.events if event.kind == "thickness"]
        if len(sizes) != 1 or len(named) > 1 or len(thick) > 1 or not self.said & lx.EACH_KEYS:
            return
        size = sizes[0]
        at = size.end + (self.key(size.end) not in lx.EACH_KEYS)
        of_another = lx.SIDE_KEYS | lx.UNITS_BY_KEY.keys()  # "8x4, cada m2 cuánto sale?"
        each = self.key(at) in lx.EACH_KEYS and self.key(at + 1) not in of_another
        if each and {"length_m", "width_m"} == size.values.keys() and self.places is None:
            self.events.append(Event(size.end, size.end, "unclear", unclear=Unclear("cantidad")))

    def _spoken_for(self, measure: Measure) -> bool:
        """Whether a bare number is told to be something else by the words around it."""
        return self.is_unknown_word(measure.end) or self._after_product(measure)

    def _near(self, first: Measure, second: Measure) -> bool:
        return all(
            self.key(at) in lx.JOIN_KEYS or self.key(at) in lx.FILLER_KEYS or self.key(at) in "/-"
            for at in range(first.end, second.start)
        )

    def _after_product(self, measure: Measure) -> bool:
        """Whether a product comes right before: "isodec de 100", "isodec: 100"."""
        before = measure.start - 1
        for _ in range(3):
            if before >= 0 and self.key(before) in _BARE_GAP and not self.used[before]:
                before -= 1
        return before in self.product_places

    def _bare_thickness(self, measure: Measure) -> None:
        value = measure.value
        after_product = self._after_product(measure)
        the_one = self._the_one_of(measure)
        if value is None:
            return
        if self.is_unknown_word(measure.end) and not (after_product or the_one):
            return
        if self.instead(measure.start):
            return
        of_pieces = self.key(measure.end) in lx.PIECE_KEYS
        if of_pieces or (self.key(measure.end) in lx.PLACE_KEYS and not after_product):
            return
        asked = self.hint.asked == ("espesor",) or ("espesor" in self.hint.asked and not measure.of)
        made = self._made(value)
        before = self.key(measure.start - 2) if measure.of else ""
        of_a_place = before in lx.PLACE_KEYS or (
            self.is_unknown_word(measure.start - 2)
            and self.key(measure.start - 3) not in lx.PIECE_KEYS  # "panel sandwich de 100"
        )
        if lx.UNITS_BY_KEY.get(self.key(measure.start - 1)) == "m":
            return  # "10 metros 50" is a length or a length and a thickness
        if made and (after_product or asked or not of_a_place or not measure.of):
            self._event(measure.start, measure.end, "thickness", {"thickness_mm": value})
        elif self._made(value * 10) and value <= 30 and (after_product or asked or measure.of):
            if after_product or asked or not of_a_place:
                option = Item(thickness_mm=tidy(value * 10))
                self._unclear(measure.start, measure.end, Unclear("espesor", (option,)))
        elif (
            15 <= value <= 500
            and (
                after_product
                or asked
                or (measure.of and not of_a_place and self.has_cue("correction"))
            )
        ) or (asked and self.hint.asked == ("espesor",)):
            self._event(measure.start, measure.end, "thickness", {"thickness_mm": value})

    def _the_one_of(self, measure: Measure) -> bool:
        """ "el de 75", "los de 100"."""
        return (
            self.key(measure.start - 1) == "de" and self.key(measure.start - 2) in lx.ARTICLE_KEYS
        )

    def _made(self, value: Decimal) -> bool:
        return value in self.words.thicknesses_mm

    # - sizes that need more than a number -

    def _quantities(self) -> None:
        """ "3 de 2x1", "8 paneles de 10 m", "2x1, 3 unidades"."""
        sizes = sorted((e for e in self.events if e.kind == "size"), key=lambda e: e.at)
        unclear = [
            e for e in self.events if e.unclear is not None and e.unclear.field == "dimensiones"
        ]
        places = {event.at: event for event in (*sizes, *unclear)}
        self.sizes_in_full = sum(1 for each in sizes if len(each.values) >= 2)
        for index, measure in enumerate(self.measures):
            count = count_of(measure.value)
            if self.used[measure.start] or measure.unit or measure.side or count is None:
                continue
            noun = self._noun_counted(measure)
            if self._labelled_as_count(measure):
                noun = "unidades"
            counted = noun in lx.PIECE_KEYS or noun in lx.PLACE_KEYS or noun in lx.SLOPE_KEYS
            one_of = noun in ("de", "of") and measure.end + 1 in places  # "precio de 8 de 5x1"
            one_of = (
                one_of and not self._made(Decimal(count)) and not self._made(Decimal(count * 10))
            )
            if not counted and (
                (measure.of and not one_of) or self._is_thickness_of_product(measure)
            ):
                continue
            if noun in lx.PLACE_KEYS and self._is_thickness_of_product(measure):
                continue  # "isodec 100 techo 10x5"
            if self._means_all(measure, count, noun):
                self._take(measure.start, measure.end)
                self.events.append(Event(measure.start, measure.end, "both"))
                continue
            bound = self._counted_size(measure, places)
            if bound is not None:
                self._bind_count(measure, bound, count, noun)
            elif noun in lx.PIECE_KEYS or (not sizes and self._counts_a_product(measure)):
                self._pieces(index, count, sizes)
            elif noun in lx.PLACE_KEYS or noun in lx.SLOPE_KEYS:
                self._places_counted(measure, count, sizes)

    def _labelled_as_count(self, measure: Measure) -> bool:
        """ "cantidad: 10"."""
        before = measure.start - 1
        if self.key(before) in (":", "=", "de"):
            before -= 1
        return self.key(before) in lx.COUNT_LABEL_KEYS

    def _counts_a_product(self, measure: Measure) -> bool:
        """ "20 isodec 100": of them or, with "de", perhaps square metres: the size will tell."""
        at = measure.end + (self.key(measure.end) == "de")
        return self._starts_product(at)

    def _means_all(self, measure: Measure, count: int, noun: str) -> bool:
        """ "los dos para 6x4", of two products or thicknesses that were named."""
        article = self.key(measure.start - 1) in lx.ARTICLE_KEYS
        told = noun in lx.PIECE_KEYS | lx.PLACE_KEYS | lx.SIDE_KEYS | lx.SLOPE_KEYS
        if not 1 < count <= _MOST_ALTERNATIVES or not article or told:
            return False
        named = {e.values["product"] for e in self.events if e.values.get("product")}
        thick = {e.values["thickness_mm"] for e in self.events if e.kind == "thickness"}
        return count in (len(named), len(thick))

    def _noun_counted(self, measure: Measure) -> str:
        """The "paneles" of "10 paneles" and of "10 isodec panels"."""
        at = measure.end
        while at in self.product_places:
            at += 1
        noun = self.key(at)
        return noun if at == measure.end or noun in lx.PIECE_KEYS else self.key(measure.end)

    def _counted_size(self, measure: Measure, places: dict[int, Event]) -> Event | None:
        """The size that a number counts: "3 de 2x1", "dos techos de 6x4", "3 isodec de 2x1"."""
        at = measure.end
        if self.key(at) == ",":
            return None  # "100, techo de 6x5"
        words = 0
        seen_of = named = False
        for _ in range(8):
            if at in places:
                beside = at == measure.end + 1 and self.key(measure.end) in lx.PIECE_KEYS
                first = self._starts_product(measure.end)  # "2 isodec 50 3x1"
                return places[at] if seen_of or beside or first else None
            if at >= len(self.tokens) or not self.same_sentence(measure.start, at):
                return None
            key = self.key(at)
            apart = key in ("uno", "una", "one") and self.key(at - 1) not in lx.EACH_KEYS
            if apart or (key == "," and self.key(at + 1) in lx.ONE_KEYS):
                return None  # "dos piezas, una de 4x3 y otra de 5x3"
            if key in ("de", "of"):
                seen_of = True
            elif named and (self.used[at] or self._made_at(at)) and not self._in_size(at):
                pass  # the "100" of "20 isodec 100 de 3x1"
            elif self.used[at] or self.tokens[at].kind == "number":
                if words == 0 and not seen_of and not self._starts_product(at):
                    return None
                if self._in_size(at):
                    return None
                named = self._starts_product(at)
            elif self.tokens[at].kind == "word" and not seen_of and key not in lx.AND_KEYS:
                words += 1
                if words > 2:
                    return None
            elif key not in lx.ARTICLE_KEYS and key != ",":
                return None
            at += 1
        return None

    def _made_at(self, at: int) -> bool:
        value = self.tokens[at].value
        return value is not None and self._made(value)

    def _starts_product(self, at: int) -> bool:
        return at in self.product_places

    def _in_size(self, at: int) -> bool:
        return at in self.size_places

    def _bind_count(self, measure: Measure, size: Event, count: int, noun: str) -> None:
        if size.kind != "size":
            assert size.unclear is not None
            options = tuple(
                replace(each, quantity=count) if each.length_m is not None else each
                for each in size.unclear.options
            )
            size.unclear = replace(size.unclear, options=options)
            self._take(measure.start, measure.end)
            return
        if "area_m2" in size.values:
            # "3 de 20 m2": of each, or in all?
            area = size.values["area_m2"]
            if self.said & lx.EACH_KEYS:
                size.values["area_m2"] = area * count
            elif count > 1:
                self._doubt(size, (Item(area_m2=area * count), Item(area_m2=area)))
            self._take(measure.start, measure.end)
        elif noun in lx.SLOPE_KEYS and count > 1 and not self.said & lx.EACH_KEYS:
            self._doubt(size, (sized_item(size, count), sized_item(size, None)))
            self._take(measure.start, measure.end + 1)
        elif noun in ("de", "of") and self._made(Decimal(count)) and "length_m" in size.values:
            # "50 de 2x1": fifty pieces, or 50 mm?
            thick = replace(sized_item(size, None), thickness_mm=Decimal(count))
            self._doubt(size, (sized_item(size, count), thick))
            self._take(measure.start, measure.end)
        elif (
            noun in lx.PIECE_KEYS
            and self._is_thickness_of_product(measure)
            and not any(event.kind == "thickness" for event in self.events)
            and "length_m" in size.values
        ):
            # "isodec 50 paneles de 3x1": of 50 mm, or fifty?
            thick = replace(sized_item(size, None), thickness_mm=Decimal(count))
            self._doubt(size, (sized_item(size, count), thick))
            self._take(measure.start, measure.end + 1)
        else:
            size.values["quantity"] = count
            size.at = measure.start
            self._take(measure.start, measure.end + 1)

    def _is_thickness_of_product(self, measure: Measure) -> bool:
        value = measure.value
        return self._after_product(measure) and value is not None and (
            self._made(value) or self._made(value * 10)
        )  # fmt: skip

    def _doubt(self, size: Event, options: tuple[Item, ...]) -> None:
        size.kind, size.values = "unclear", {}
        size.unclear = Unclear("dimensiones", options)

    def _pieces(self, index: int, count: int, sizes: list[Event]) -> None:
        """Pieces that are counted apart from their size: the nearest size before, or after."""
        measure = self.measures[index]
        if not sizes and self.hint.things and self._more_or_fewer(measure, count):
            return
        length = self._length_of_pieces(index)
        if length is not None:
            metres = in_metres(length, default="m")
            if len(metres) == 1:
                values = {"length_m": metres[0], "quantity": count}
                self._event(measure.start, measure.end + 1, "size", values)
                self._take(length.start, length.end)
                return
        place = bisect_left(sizes, measure.start, key=lambda event: event.at)
        told_of = [
            e
            for e in sizes[max(place - 1, 0) : place]
            if e.end == measure.start - 1 and len(e.values) == 2
        ]
        if told_of and self.key(measure.start - 1) == "(":  # "4x3 (2 unidades), 5x3 (1 unidad)"
            told_of[0].values["quantity"] = count
            told_of[0].end = measure.end + 1 + (self.key(measure.end + 1) == ")")
            self._take(measure.start, measure.end + 1)
            return
        if count > 1 and self.sizes_in_full == count:
            self._take(measure.start, measure.end + 1)
            products = {e.values["product"] for e in self.events if e.values.get("product")}
            if told_of and self.key(measure.start - 1) == "," and len(products) > 1:
                told_of[0].values["quantity"] = count
            elif told_of and self.key(measure.start - 1) == ",":
                # "4x3, 5x3, 2 unidades": of the last, or are they the two?
                one = sized_item(told_of[0], None)
                self._doubt(told_of[0], (sized_item(told_of[0], count), one))
            return  # each of them has its size
        near = sizes[max(place - 1, 0) : place] or sizes[place : place + 1]
        near = [event for event in near if "area_m2" not in event.values]
        if (
            near
            and near[0].kind == "size"
            and "quantity" not in near[0].values
            and len(near[0].values) == 2
        ):
            near[0].values["quantity"] = count
            self._take(measure.start, measure.end + 1)
        elif not sizes or (near and len(near[0].values) == 1):
            self._event(measure.start, measure.end + 1, "size", {"quantity": count})
        else:  # of an area: how it is cut makes no difference
            self._take(measure.start, measure.end + 1)

    def _more_or_fewer(self, measure: Measure, count: int) -> bool:
        """ "agregale 2 paneles", "3 planchas más"."""
        before, after = self.key(measure.start - 1), self.key(measure.end + 1)
        more = after in ("mas", "more") or before in lx.LONGER_KEYS
        fewer = after in ("menos", "less", "fewer") or before in lx.SHORTER_KEYS
        if more == fewer:
            return False
        self.longer.append(("quantity", Decimal(count if more else -count)))
        self._take(measure.start, measure.end + 1)
        return True

    def _length_of_pieces(self, index: int) -> Measure | None:
        """The 10 m of "8 paneles de 10 m", also with the product between."""
        measure = self.measures[index]
        for other in self.measures[index + 1 : index + 4]:
            if other.start <= measure.end or other.start - measure.end > 7:
                continue
            if other.unit in ("m", "cm") and other.of and not self.used[other.start]:
                if other.unit == "cm" and not other.linear:
                    return None
                if self.same_sentence(measure.start, other.start):
                    return other
        return None

    def _places_counted(self, measure: Measure, count: int, sizes: list[Event]) -> None:
        """ "2 techos, 10x5": each of them, or both together? As many sizes say it clearly."""
        several = (self.hint.pieces or 1) > 1 or self._told_to_be_so_many(measure)
        self._take(measure.start, measure.end + 1)
        if not sizes and self.hint.pieces and several:
            self._event(measure.start, measure.end + 1, "size", {"quantity": count})
            return
        if not sizes and count > 1:
            self.places = count
        here = [
            event for event in sizes[: count + 1]
            if event.kind == "size" and {"length_m", "width_m"} <= event.values.keys()
        ]  # fmt: skip
        if count < 2 or len(here) == count:
            return
        if len(here) == 1 and "quantity" not in here[0].values:
            if self.said & lx.EACH_KEYS:
                here[0].values["quantity"] = count
            else:
                self._doubt(here[0], (sized_item(here[0], count), sized_item(here[0], None)))

    def _metres_alone(self) -> None:
        """ "50 metros" may be square metres or a length."""
        sizes = [event for event in self.events if event.kind == "size"]
        if len(sizes) == 1 and len(sizes[0].values) == 1:
            self._other_side(sizes[0])
        if sizes:
            return
        about_a_quote = bool(self.events) or self.has_cue("quote_request") or self.hint.asked
        free = [
            each for each in self.measures
            if each.unit == "m" and not each.side and not self.used[each.start]
        ]  # fmt: skip
        if len(free) == 2 and about_a_quote and not any(each.linear for each in free):
            options = tuple(Item(length_m=a, width_m=b) for a, b in sides_m(free))
            self._unclear(free[0].start, free[1].end, Unclear("dimensiones", options))
            return
        if (self.hint.pieces or 1) > 1 and len(free) == 1 and free[0].of:
            metres = in_metres(free[0], default="m")
            if len(metres) == 1:  # "y son de 6 metros", of pieces
                self._event(free[0].start, free[0].end, "size", {"length_m": metres[0]})
            return
        for measure in free if about_a_quote else ():
            metres = in_metres(measure, default="m")
            if len(metres) != 1:
                continue
            if measure.linear:
                self._event(measure.start, measure.end, "size", {"length_m": metres[0]})
            elif self.hint.missing_side:
                self._event(
                    measure.start, measure.end, "size", {f"{self.hint.missing_side}_m": metres[0]}
                )
            elif not self._asks_but_for_a_price(self.sentence[measure.start]):
                self._area_or_length(measure, metres[0])
            return

    def _told_to_be_so_many(self, measure: Measure) -> bool:
        """ "no, son 4", "quiero dos iguales", "son 2 techos así"."""
        if (self.hint.pieces or 1) > 1 and self.key(measure.start - 1) in ("son", "sean"):
            return True
        after = measure.end
        after += self.key(after) in lx.PLACE_KEYS or self.key(after) in lx.PIECE_KEYS
        after += self.key(after) == "de"
        return self.key(after) in lx.ALIKE_KEYS

    def _asks_but_for_a_price(self, sentence: int) -> bool:
        """ "¿aguanta 40 metros?", but not "¿cuánto salen 40 metros?", "¿me cotizás otra igual?"."""
        wants = any(cue == "quote_request" for *_, cue in self.cues_in.get(sentence, ()))
        return self.is_question(sentence) and not wants

    def _other_side(self, size: Event) -> None:
        """ "30 metros lineales de 2,5 de alto", "10 metros y 5 de ancho"."""
        missing = {"length_m": "width_m", "width_m": "length_m"}.get(next(iter(size.values)))
        free = [
            each for each in self.measures
            if each.unit == "m" and not each.side and not self.used[each.start]
        ]  # fmt: skip
        metres = in_metres(free[0], default="m") if len(free) == 1 else ()
        if missing is not None and len(metres) == 1:
            self._event(free[0].start, free[0].end, "size", {missing: metres[0]})

    def _numbers_left_over(self) -> None:
        """ "10x5, quiero 2": a number that nothing explains, beside a size, may be of pieces."""
        sizes = [event for event in self.events if event.kind == "size"]
        if not sizes and self.hint.things:
            self._the_number_again()
            return
        if len(sizes) != 1 or "quantity" in sizes[0].values:
            return
        for measure in self.measures:
            count = count_of(measure.value)
            free = not self.used[measure.start] and measure.unit is None and not measure.side
            if not free or count is None or not 2 <= count <= 100:
                continue
            if self.is_unknown_word(measure.end) or self._names_something(measure.end):
                continue
            one = sized_item(sizes[0], None)
            if one.area_m2 is not None:
                several = replace(one, area_m2=one.area_m2 * count)
            elif one.length_m is not None and one.width_m is not None:
                several = replace(one, quantity=count)
            else:
                continue
            self._doubt(sizes[0], (several, one))
            self._take(measure.start, measure.end)
            return

    def _the_number_again(self) -> None:
        """ "mejor 30", "la lana son 35", "quiero dos iguales": another area, or so many pieces,
        if nothing else was said."""
        free = [each for each in self.measures if not self.used[each.start] and not each.side]
        if len(free) != 1 or free[0].unit or self.is_unknown_word(free[0].end):
            return
        value, before = free[0].value, free[0].start - 1
        of = {event.values.get("product") for event in self.events}
        meant = [item for item in self.hint.items if not of or {item.product} == of]
        again = self.has_cue("correction") or self.has_cue("deny") or self.key(before) in _COPULA
        again = again or (before == 0 and self.key(0) in lx.AND_KEYS)  # "¿y 40?"
        alike = bool(self.hint.pieces) and self._told_to_be_so_many(free[0])
        if value is None or len(meant) != 1 or not (again or alike):
            return
        if meant[0].area_m2 is not None:
            self._event(free[0].start, free[0].end, "size", {"area_m2": value})
        elif (alike or (meant[0].quantity or 1) > 1) and count_of(value) is not None:
            self._event(free[0].start, free[0].end, "size", {"quantity": count_of(value)})

    def _set_unwanted_apart(self) -> None:
        """ "el de 4x3 no", "saca el de 150": of several things, one that goes."""
        if self.hint.things < 2:
            return
        unwanted = [
            e for e in self.events if e.kind in ("size", "thickness") and self._is_unwanted(e)
        ]
        self.unwanted += tuple(
            Item(**{name: value for name, value in e.values.items() if name != "quantity"})
            for e in unwanted
        )
        dropped = {id(event) for event in unwanted}
        self.events = [event for event in self.events if id(event) not in dropped]

    def _told_by_its_number(self) -> None:
        """ "el segundo en gris", "sacá el primero": of several things that are known."""
        if self.hint.things < 2 or self.hint.options:
            return
        for at, key in enumerate(self.raw):
            number = lx.ORDINALS.get(key)
            article = self.key(at - 1) in lx.ARTICLE_KEYS or self.key(at - 1) == "al"
            if number is None or not article or not -1 <= number < self.hint.things:
                continue
            if self.key(at + 1) in lx.NO_ORDER_KEYS:
                continue
            if self._is_unwanted(Event(at, at + 1, "which")):
                item = self.hint.items[number]
                self.unwanted += (replace(item, colour=None, finishes=None, quantity=None),)
            else:
                self.which = number % self.hint.things

    def _is_unwanted(self, event: Event) -> bool:
        if self._denied_behind(event.end):
            return True
        back = event.at - 1
        passing = lx.ARTICLE_KEYS | lx.OF_KEYS | lx.PLACE_KEYS | lx.PIECE_KEYS
        while back >= 0 and self.key(back) in passing:
            back -= 1
        if self.key(back) in lx.REMOVE_KEYS or self.key(back) == "sin":
            return True
        return self.key(back) in lx.NOT_WANTED_VERB_KEYS and self.key(back - 1) in lx.NOT_KEYS

    def _denied_behind(self, end: int) -> bool:
        """ "el de 4x3 no", "el eps no lo quiero", "el segundo sacalo"."""
        if end in self.taken_out:
            return True
        if self.key(end) not in ("no", "not"):
            return False
        after = end + 1 + (self.key(end + 1) in lx.IT_KEYS)
        ends = after >= len(self.tokens) or self.tokens[after].kind == "mark"
        return ends or self.key(after) in lx.NOT_WANTED_VERB_KEYS | {"va", "van"}

    def _the_same_again(self) -> None:
        """ "10x5 y lo mismo en 150", "lana de roca, misma medida", "otro igual en gris"."""
        told = any(event.kind == "size" for event in self.events)
        for at in range(len(self.tokens)):
            found = None if self.used[at] else _SAME_AGAIN.at(self.keys, at)
            if found is None or self._asks_but_for_a_price(self.sentence[at]):
                continue
            kind, end = found
            if kind == "one_more" and not told:
                self.copied = self._what_is_wanted_again()
                kind = "copy"
            self.events.append(Event(at, end, "same" if kind == "one_more" else kind))

    def _what_is_wanted_again(self) -> Item | None:
        """Of what is known, the thing that "otra igual" is like, if it is clear which."""
        named = {event.values.get("product") for event in self.events} - {None}
        meant = [each for each in self.hint.items if each.product in named]
        meant = meant or list(self.hint.items)
        return meant[0] if len(meant) == 1 else None

    def _names_something(self, at: int) -> bool:
        return self.key(at) in lx.PLACE_KEYS or self.key(at) in lx.COUNTED_ELSEWHERE_KEYS

    def _area_or_length(self, measure: Measure, value: Decimal) -> None:
        options = (Item(area_m2=value), Item(length_m=value))
        self._unclear(measure.start, measure.end, Unclear("dimensiones", options))

    # - finishes, colours, what is included -

    def _finishes(self) -> None:
        self.measure_ends = {measure.end: measure for measure in self.measures}
        self.sides_told = 0
        for at in range(len(self.tokens)):
            if self.used[at]:
                continue
            found = self.words.finishes.at(self.keys, at)
            if found is None or self._is_substrate(at) or self.raw[at] in lx.WORDS_OF_THEIR_OWN:
                continue
            if len(self.events) > _MAX_MEASURES:
                return
            finish, end = found
            if self._denied(at) or self._denied_after(end):
                self._event(at, end, "finish", {"finish": finish, "sides": 0})
                continue
            had = self.hint.items[0].finishes or () if self.hint.things == 1 else ()
            if (finish in dict(had) and self.key(end) in _FOR) or self.instead(at):
                self._event(at, end, "finish", {"finish": finish, "sides": 0})
                continue
            sides = self._sides_counted(at, end)
            if sides is None:
                sides = self._sides_of_the_one_before(at, end, finish)
            if sides is None:
                options = tuple(
                    Item(finishes=((finish, count),))
                    for count in range(1, self.catalogue.max_finish_sides + 1)
                )
                self._unclear(at, end, Unclear("terminaciones", options))
            else:
                self.sides_told += sides
                self._event(at, end, "finish", {"finish": finish, "sides": sides})

    def _sides_of_the_one_before(self, at: int, end: int, finish: str) -> int | None:
        """ "gotero en 3 lados y hormigón en los otros", "cambialo por hormigón"."""
        if any(self.key(place) in lx.THE_REST_KEYS for place in range(end, end + 4)):
            left = self.catalogue.max_finish_sides - self.sides_told
            return left if self.sides_told and left > 0 else None
        had = self.hint.items[0].finishes or () if self.hint.things == 1 else ()
        before = at - 1 - (self.key(at - 1) in lx.ARTICLE_KEYS)
        if len(had) == 1 and had[0][0] != finish and self.key(before) in _FOR:
            self.events.append(Event(at, at, "finish", {"finish": had[0][0], "sides": 0}))
            return had[0][1]
        return None

    def _is_substrate(self, at: int) -> bool:
        """ "sobre losa de hormigón" is what it is put on, not a finish."""
        for back in range(1, 4):
            place = at - back
            if place < 0 or not self.same_sentence(place, at):
                return False
            key = self.key(place)
            if key in lx.SUBSTRATE_KEYS:
                return True
            if key in lx.WITH_KEYS or key in lx.FINISH_KEYS or key == "," or self.used[place]:
                return False
        return False

    def _denied(self, at: int) -> bool:
        """ "sin gotero", "no quiero gotero"; the no of "sin flete, gotero" is another's."""
        steps = 0
        for place in range(at - 1, max(at - 9, -1), -1):
            key = self.key(place)
            steps += key not in lx.LINKING_KEYS
            if steps > 3:
                return False
            if not self.same_sentence(place, at) or key in (",", "y", "e", "and"):
                return False
            if key in lx.NOT_KEYS or self.tokens[place].word in lx.NOT_KEYS:
                optional = lx.ANCHOR_KEYS | lx.FREIGHT_KEYS
                of_another = key in ("no", "not") and self.key(place - 1) in optional  # "flete no"
                return not of_another or self.key(place + 1) in lx.NOT_WANTED_VERB_KEYS
            if self.used[place] or key in lx.ANCHOR_KEYS or key in lx.FREIGHT_KEYS:
                return False
            if self.tokens[place].kind == "number":
                return False
            if key in lx.WITH_KEYS and self.key(place - 1) not in lx.NOT_KEYS:
                return False  # but "sin incluir", "no poner"
        return False

    def _denied_after(self, end: int) -> bool:
        """ "gotero no"."""
        ends = end + 1 >= len(self.tokens) or self.tokens[end + 1].kind == "mark"
        return self.key(end) in ("no", "not") and ends

    def _sides_counted(self, at: int, end: int) -> int | None:
        """How many sides get the finish: "en 2 lados", "4 goteros", "todos los lados"."""
        before = self._measure_ending(at)
        if before is not None:
            count = count_of(before.value)
            if count is not None and count <= 12:
                self._take(before.start, before.end)
                return count
        named: set[str] = set()
        count = None
        for place in range(end, min(end + 9, len(self.tokens))):
            key = self.key(place)
            if not self.same_sentence(at, place) or self.words.finishes.at(self.keys, place):
                break
            if key in (",", "y", "and") and (
                count is not None or self._lists_something_else(place + 1)
            ):
                break
            number = (
                count_of(self.tokens[place].value) if self.tokens[place].kind == "number" else None
            )
            if number is not None and not self.used[place] and count is None:
                follows = self.key(place + 1)
                close = place - end <= 3 and number <= self.catalogue.max_finish_sides
                if (
                    (follows in lx.SIDE_KEYS or close)
                    and follows not in lx.UNITS_BY_KEY
                    and (follows not in lx.TIMES_KEYS and follows not in lx.PIECE_KEYS)
                ):
                    self._take(place, place + 1)
                    count = number
            elif key in lx.SIDE_KEYS and count is None:
                if self.key(place - 1) in ("un", "una", "one", "a", "solo"):
                    count = 1
                if self.key(place - 1) in ("ambos", "ambas", "both"):
                    count = 2
            elif key in ("uno", "una", "one") and self.key(place - 1) in ("en", "on"):
                count = 1
            elif key in lx.OTHER_KEYS and self.key(place - 1) in lx.ARTICLE_KEYS | {"en", "on"}:
                count = 1 if self.key(place + 1) != "#" else None
            elif key in lx.NAMED_SIDES and not self.used[place]:
                named.add(lx.NAMED_SIDES[key])
            elif key in lx.LATERALS_KEYS and not named and count is None:
                count = 2
            elif key in lx.WHOLE_PERIMETER_KEYS or self._all_sides(place):
                count = self.catalogue.max_finish_sides
        if count is None and named:
            return len(named)
        if count is None:
            return self._sides_before(at)
        return count

    def _all_sides(self, at: int) -> bool:
        """ "todos los lados"; in "los dos lados" it is the number that counts."""
        both = self.key(at) in ("ambos", "ambas", "both")
        return self.key(at) in lx.ALL_KEYS and not both and self.key(at + 2) in lx.SIDE_KEYS

    def _lists_something_else(self, at: int) -> bool:
        key = self.key(at)
        return not (
            key in lx.NAMED_SIDES
            or key in lx.ARTICLE_KEYS
            or key in lx.SIDE_KEYS
            or key in ("en", "on", "#")
        )

    def _sides_before(self, at: int) -> int | None:
        """ "2 lados con gotero", "en los cuatro lados gotero"."""
        for back in range(1, 5):
            place = at - back
            if place < 0 or not self.same_sentence(place, at) or self.tokens[place].text in ",;":
                return None
            other = self.key(place) in lx.OTHER_KEYS or self.key(place) in ("uno", "one")
            if other and self.key(place + 1) in lx.WITH_KEYS:
                return 1  # "un lado con gotero y otro con hormigón"
            if self.key(place) in lx.SIDE_KEYS:
                previous = place - 1
                if self.key(previous) in ("un", "una", "one", "a"):
                    return 1
                if self.key(previous) in ("ambos", "both"):
                    return 2
                if (
                    previous >= 0
                    and self.tokens[previous].kind == "number"
                    and not self.used[previous]
                ):
                    self._take(previous, place + 1)
                    return count_of(self.tokens[previous].value)
                if self.key(previous) in lx.ARTICLE_KEYS and self.key(previous - 1) in lx.ALL_KEYS:
                    return self.catalogue.max_finish_sides
                return None
        return None

    def _measure_ending(self, at: int) -> Measure | None:
        """The unused number right before, as in "4 goteros" or "2 de hormigón"."""
        for end in (at, at - 1):
            measure = self.measure_ends.get(end)
            if measure is None or measure.unit is not None or self.used[measure.start]:
                continue
            if end == at or self.key(at - 1) in ("de", "con", "of"):
                return measure
        return None

    def _colours(self) -> None:
        for at in range(len(self.tokens)):
            if self.used[at]:
                continue
            found = self.words.colours.at(self.raw, at) or self.words.colours.at(self.keys, at)
            if found is not None:
                colour, end = found
                if not self._denied_here(at):
                    self._event(at, end, "colour", {"colour": colour})
                continue
            if self.keys[at] == "kolor" and self._wants_some_colour(at):
                self._unclear(at, at + 1, Unclear("color"))
                continue
            said = lx.OTHER_COLOURS.get(self.raw[at])
            if said is None and self.key(at - 1) == "kolor" and self.is_unknown_word(at):
                said = self.tokens[at].word[:20]
            if said is not None and not self._denied_here(at):
                self._event(at, at + 1, "colour", {"colour": ""}, unknown=Unknown("color", said))

    def _wants_some_colour(self, at: int) -> bool:
        """ "de color", and which is not said."""
        ends = at + 1 == len(self.tokens) or self.tokens[at + 1].kind == "mark"
        goes_on = self.key(at + 1) in (":", "=", "(")
        wanted = self.key(at - 1) in ("de", "en", "in") and not self._denied_here(at - 1)
        return wanted and ends and not goes_on and not self.is_question(self.sentence[at])

    def _denied_here(self, at: int) -> bool:
        """ "que no sea blanco", "no blanco", "en vez de blanco"."""
        back = at - 1
        passing = lx.NOT_WANTED_VERB_KEYS | {"el", "la", "de", "en", "color", "kolor"}
        while back >= 0 and self.key(back) in passing:
            back -= 1
        near = self.key(back)
        of_another = self.key(back - 1) in lx.ANCHOR_KEYS | lx.FREIGHT_KEYS  # "flete no, gris"
        return (near in ("no", "not", "ni") and not of_another) or self.instead(at)

    def _anchors_and_freight(self) -> None:
        last: bool | None = None  # "sin flete ni anclajes": the no goes on
        since = 9
        for at, key in enumerate(self.keys):
            kind = (
                "anchors" if key in lx.ANCHOR_KEYS else "freight" if key in lx.FREIGHT_KEYS else ""
            )
            if self.tokens[at].kind == "mark" and self.tokens[at].text in ENDS:
                last = None
            if kind and not self.used[at]:
                included = self._included(at, last if since <= 3 else None)
                if included is False and self._also_with(at):
                    self._event(at, at + 1, kind, {kind: True})
                if included is False and self._is_condition(at):
                    included = None
                if included is not None and not self._asks_what_is_included(at):
                    self._event(at, at + 1, kind, {kind: included})
                last, since = included, 0
            elif key not in lx.ARTICLE_KEYS and key not in (
                ",",
                "y",
                "e",
                "o",
                "ni",
                "and",
                "or",
                "nor",
                "/",
            ):
                since += 1
            if _PICK_UP.at(self.keys, at) is not None and not self.used[at]:
                self._event(at, at + 1, "freight", {"freight": False})
            of_it = key in lx.FREIGHT_VERB_OF_IT_KEYS and self.key(at - 1) in lx.IT_KEYS
            if (key in lx.FREIGHT_VERB_KEYS or of_it) and not self.used[at]:
                denied = self._denied(at)
                self._event(at, at + 1, "freight", {"freight": not denied})

    def _included(self, at: int, carried: bool | None) -> bool | None:
        """Whether anchors or freight are wanted, said before ("sin flete") or after
        ("flete no incluido", "flete aparte"); None when it is only mentioned."""
        after = self.key(at + 1)
        if after in (":", "="):
            after = self.key(at + 2)
        if after in ("no", "not") or (after in ("is", "ba", "va") and self.key(at + 2) == "not"):
            return False
        if after in ("aparte", "exkluido", "eksluido") or self._has_own(at):
            return False
        if self._denied(at) or self._excepted(at):
            return False
        for back in range(1, 4):
            place = at - back
            if place < 0 or not self.same_sentence(place, at):
                break
            if self.key(place) in lx.WITH_KEYS and self.key(place) not in ("mas", "plus"):
                return True
            if self.key(place) not in lx.ARTICLE_KEYS and self.key(place) not in (
                "y",
                "and",
                "el",
            ):
                break
        if after in lx.INCLUDED_KEYS or after == "si" or self.key(at - 1) in ("mas", "plus", "+"):
            return True
        return carried

    def _also_with(self, at: int) -> bool:
        """ "con y sin flete", "with or without anchors"."""
        back = at - 1 - (self.key(at - 1) in lx.ARTICLE_KEYS)
        joined = self.key(back - 1) in lx.AND_KEYS or self.key(back - 1) in lx.OR_KEYS
        return self.key(back) in lx.WITHOUT_KEYS and joined and (
            self.key(back - 2) in lx.WITH_KEYS
        )  # fmt: skip

    def _is_condition(self, at: int) -> bool:
        """ "no lo acepto si no incluye el flete"."""
        if not self.decisions:
            return False
        return any(
            self.key(place) in ("si", "if") and self.key(place + 1) in lx.NOT_KEYS
            for place in range(max(0, at - 5), at)
        )

    def _excepted(self, at: int) -> bool:
        """ "todo incluido menos el flete"."""
        back = at - 1
        while back >= 0 and self.key(back) in lx.ARTICLE_KEYS:
            back -= 1
        return self.key(back) in lx.EXCEPT_KEYS

    def _has_own(self, at: int) -> bool:
        """ "los anclajes los tengo", "ya tengo anclajes", "el flete lo pongo yo", "un flete
        mío", "el flete corre por mi cuenta"."""
        for place in range(at + 1, min(at + 6, len(self.tokens))):
            if self.tokens[place].text in ENDS or self.tokens[place].text == ",":
                break
            if self.key(place) in lx.MINE_KEYS:
                return True
        for step, last in ((1, at + 5), (-1, at - 4)):
            for place in range(at + step, last, step):
                key = self.key(place)
                if key in lx.OWN_KEYS:
                    return self.key(place - 1) not in lx.NOT_KEYS
                if key not in lx.LINKING_KEYS and key not in lx.ARTICLE_KEYS and key != "ya":
                    break
        return False

    def _asks_what_is_included(self, at: int) -> bool:
        """ "¿el precio es con flete?" asks; "¿me cotizás sin flete?" orders."""
        sentence = self.sentence[at]
        if not self.is_question(sentence):
            return False
        asks = {
            "es",
            "esta",
            "insluye",
            "inkluye",
            "biene",
            "trae",
            "tiene",
            "includes",
            "include",
            "is",
            "does",
        }
        if sentence in self.core_sentences:
            return False
        return any(
            self.keys[back] in asks
            for back in range(max(0, at - 4), at)
            if self.sentence[back] == sentence
        )

    # - who wants it -

    def _set_apart_what_was_before(self) -> None:
        """ "mi vecino puso 20 m2 de 50, yo quiero de 100 para 6x4": what is told of earlier is
        no order, where another is told."""
        ends = lx.NOW_KEYS | lx.I_WANT_KEYS | {","}
        before = self._clauses(lx.I_DID_KEYS, lx.THEY_DID_KEYS, ends)
        now = {e.kind for e in self.events if e.kind in CORE and e.at not in before}
        if before and "size" in now:
            self.events = [e for e in self.events if e.at not in before or e.kind not in now]

    def _others(self, sized_at: Sequence[int]) -> tuple[int, ...]:
        """The items of whoever else wants something beside the customer."""
        said = self._clauses(frozenset(), lx.THEY_WANT_KEYS, lx.MYSELF_KEYS | lx.I_WANT_KEYS)
        theirs = tuple(index for index, at in enumerate(sized_at) if at in said)
        own = any(at >= 0 and at not in said for at in sized_at)
        speaks_of_self = self.said & (lx.I_WANT_KEYS | lx.MYSELF_KEYS) - {"mi"}
        return theirs if own and speaks_of_self else ()

    def _only_own(self) -> bool | None:
        """The answer to whether what somebody else wants is to be quoted too."""
        if "de_quien" not in self.hint.asked:
            return None
        if self.said & (lx.ONLY_KEYS | lx.MINE_KEYS | {"mine"}) or self.has_cue("deny"):
            return True
        too = self._of_all() or bool(self.said & lx.ALL_KEYS) or self.has_cue("addition")
        return False if too or self.has_cue("affirm") else None

    def _clauses(
        self, mine: frozenset[str], theirs: frozenset[str], ends: frozenset[str]
    ) -> set[int]:
        """The places of what follows one of my verbs, or one of theirs with somebody before it
        ("mi vecino del fondo quiere"), as far as the sentence and these words go."""
        places: set[int] = set()
        at = 0
        while at < len(self.keys):
            key, start = self.keys[at], at
            at += 1
            somebody = key in theirs and any(
                self.key(back) in lx.OTHER_PEOPLE_KEYS for back in range(start - 4, start)
            )
            if not (somebody or key in mine):
                continue
            while at < self.ends[self.sentence[start]] and self.keys[at] not in ends:
                places.add(at)
                at += 1
        return places

    # - questions -

    def _asked_in(self, sentence: int) -> list[str]:
        asked = [
            cue.removeprefix("ask_")
            for _, _, cue in self.cues_in.get(sentence, ())
            if cue.startswith("ask_")
        ]
        return asked + self.topics_by_sentence.get(sentence, [])

    def _set_questions_apart(self) -> tuple[tuple[str, ...], tuple[Decimal, ...]]:
        """What a question is about is not an order: "¿qué diferencia hay entre 100 y 150?"."""
        self.topics_by_sentence: dict[int, list[str]] = {}
        covered = 0
        for at in range(len(self.tokens)):
            found = self.words.topics.at(self.keys, at) if at >= covered else None
            if found is not None and at not in self.decisions:  # "no me sirve" asks nothing
                topic, covered = found
                self.topics_by_sentence.setdefault(self.sentence[at], []).append(topic)
        self.sized_sentences = {self.sentence[e.at] for e in self.events if e.kind == "size"}
        about: list[str] = []
        thicknesses: list[Decimal] = []
        ordered: list[Event] = []
        info: dict[int, bool] = {}
        for event in self.events:
            sentence = self.sentence[event.at]
            if sentence not in info:
                info[sentence] = self._only_asks(sentence)
            if not info[sentence]:
                ordered.append(event)
            elif event.values.get("product"):
                about.append(event.values["product"])
            elif event.kind == "thickness":
                thicknesses.append(event.values["thickness_mm"])
            elif event.unknown is not None and event.kind == "product":
                ordered.append(event)
        self.events = ordered
        return tuple(dict.fromkeys(about)), tuple(dict.fromkeys(thicknesses))

    def _only_asks(self, sentence: int) -> bool:
        asked = self._asked_in(sentence)
        if asked == ["price_factors"]:
            # By itself it is the beginning of an order; of another product than that of the
            # quote it is a question.
            open_to = {"producto", "espesor", "dimensiones"} & set(self.hint.asked)
            return bool(self.hint.products) and not open_to and sentence not in self.sized_sentences
        if not asked or not (self.is_question(sentence) or self._asks_by_cue(sentence)):
            return False
        wants_to_know = any(
            self.keys[at] in lx.ASK_TO_KNOW_KEYS
            for at in range(self.starts[sentence], self.ends[sentence])
        )
        wants_price = any(
            cue == "quote_request" and not (wants_to_know and self._is_weak(start, end))
            for start, end, cue in self.cues_in.get(sentence, ())
        )
        return sentence not in self.sized_sentences and not (wants_price)

    def _is_weak(self, start: int, end: int) -> bool:
        """Whether a cue of wanting ("quiero") says nothing of what is wanted."""
        return end - start == 1 and self.keys[start] in _WEAK_QUOTE

    def _asks_by_cue(self, sentence: int) -> bool:
        """Cues that ask in whatever sentence they stand: "contame del isodec"."""
        return any(cue in _ASKS_ANYWHERE for _, _, cue in self.cues_in.get(sentence, ()))

    def _topics(self, has_items: bool) -> tuple[str, ...]:
        topics: list[str] = []
        for sentence in sorted(self.cues_in.keys() | self.topics_by_sentence.keys()):
            asked = self._asked_in(sentence)
            wants = any(cue == "quote_request" for _, _, cue in self.cues_in.get(sentence, ()))
            if (
                self.is_question(sentence)
                or self._asks_by_cue(sentence)
                or not (has_items or wants)
            ):
                topics += asked
            elif not self.product_places and self.hint.product is None:
                # "necesito aislar del ruido": what for, before it is said with what
                topics += self.topics_by_sentence.get(sentence, [])
        return tuple(dict.fromkeys(topics))

    # - answers to what was offered -

    def _choice(self, items: tuple[Item, ...]) -> int | None:
        """Which of the readings that were offered the message takes."""
        options = self.hint.options
        if not options:
            return None
        if self.completes is not None:
            return self.completes
        if len(options) == 1 and self.has_cue("affirm") and not self.has_cue("deny"):
            return 0
        words = self.said
        by_unit = {
            "area_m2": bool(
                words & (lx.SQUARE_KEYS | {"m2", "metros2"} | lx.AREA_KEYS | {"metraje"})
            ),
            "length_m": bool(words & (lx.LINEAR_KEYS | {key_of("largo"), "long", "length"})),
            "quantity": bool(words & lx.EACH_KEYS),
        }
        for name, named in by_unit.items():
            having = [at for at, option in enumerate(options) if getattr(option, name) is not None]
            if named and len(having) == 1:
                return having[0]
        if words & (lx.TOTAL_KEYS - {"son"}) and not words & lx.EACH_KEYS:
            single = [
                at for at, o in enumerate(options) if o.quantity is None and o.length_m is not None
            ]
            if len(single) == 1 and len(options) > 1:
                return single[0]
        for item in [each for each in items if each != Item()][:1]:
            agreeing = [at for at, option in enumerate(options) if _agrees(item, option)]
            if len(agreeing) == 1:
                return agreeing[0]
            shared = [_said_of(item, option) for option in options]
            if max(shared) > 0 and shared.count(max(shared)) == 1:
                return shared.index(max(shared))
        free = [m.value for m in self.measures if m.unit is None]
        if len(free) == 1 and free[0] is not None:
            matching = [at for at, option in enumerate(options) if free[0] in _numbers_of(option)]
            if len(matching) == 1:
                return matching[0]
        ordinals = {"primero": 0, "primera": 0, "first": 0, "segundo": 1, "segunda": 1, "second": 1}
        for word, at in ordinals.items():
            if key_of(word) in words and at < len(options):
                return at
        if words & (lx.ALL_KEYS | lx.WHOLE_PERIMETER_KEYS) and options[-1].finishes is not None:
            return len(options) - 1
        if words & lx.ONE_KEYS and options[0].finishes is not None:
            return 0
        return None

    # - intents -

    def _of_all(self) -> bool:
        """ "todo en gris", "los dos de 150"; but not "gotero en todos los lados"."""
        for at, key in enumerate(self.keys):
            counted = self.tokens[at + 1].value if at + 1 < len(self.tokens) else None
            both = key in lx.ARTICLE_KEYS and counted == self.hint.things > 1
            if not (key in lx.ALL_KEYS or both):
                continue
            if not any(self.key(after) in lx.SIDE_KEYS for after in range(at + 1, at + 4)):
                return True
        return False

    def _speaks_of_another(self) -> bool:
        """ "el otro techo es de 6x4", where one is known."""
        return (
            self.hint.things == 1
            and any(event.kind == "size" for event in self.events)
            and any(
                key in lx.OTHER_KEYS and self.key(at + 1) in lx.PLACE_KEYS | lx.PIECE_KEYS
                for at, key in enumerate(self.keys)
            )
        )

    def _added(self) -> bool:
        if self.has_cue("addition") or self.copied is not None or self._speaks_of_another():
            return True
        first = next(
            (
                key
                for key, token in zip(self.keys, self.tokens, strict=True)
                if token.kind == "word"
            ),
            "",
        )
        if first not in ("y", "and", "plus", "mas"):
            return False
        # "¿y en telgopor de 50?" is the same in another material
        sized = any(event.kind == "size" for event in self.events)
        asks = self.is_question(0) or self.key(1) in ("en", "in", "si", "if")
        return sized or not asks

    def _intents(self, said: Understanding) -> tuple[Intent, ...]:
        sure: dict[str, float] = {}
        for start, end, cue in self.cues:
            name, confidence = cue, 0.9
            if cue.startswith("ask_"):
                continue
            if cue == "quote_request" and self._is_weak(start, end):
                confidence = 0.8 if said.items else 0.0 if said.topics else 0.5
            if cue in ("acceptance", "rejection") and not self.decides(start, end):
                confidence = 0.5
            if cue == "acceptance" and self.said & lx.MONEY_KEYS:
                confidence = 0.5  # "te doy 5000 pesos, cerramos"
            if cue == "acceptance" and self._is_guessed(start, end):
                confidence = 0.5
            if cue == "acceptance" and any(
                key in lx.NOT_KEYS for key in self.keys[max(0, start - 3) : start]
            ):
                name, confidence = "rejection", 0.5
            if name == "rejection" and self._refuses_the_price(start, end):
                name, confidence = "price_objection", 0.9
            if cue == "remove_it" and (said.removed or said.unwanted or _takes_out(said)):
                continue
            if cue in ("correction", "addition") and not (
                said.items or said.unclear or said.unknown
            ):
                confidence = 0.4
            sure[name] = max(sure.get(name, 0.0), confidence)
        if said.topics:
            sure["product_question"] = 0.85
        ordered = [item for item in said.items if item != Item()]
        if said.removed or said.unwanted or said.longer:
            sure["correction"] = 0.85
        if self.copied is not None or self._speaks_of_another():
            sure["addition"] = 0.85
        if ordered and any(item.product or item.sized or item.thickness_mm for item in ordered):
            sure["quote_request"] = max(sure.get("quote_request", 0.0), 0.85)
        elif (
            ordered or said.unclear or said.choice is not None or (said.unknown and self.hint.asked)
        ):
            sure["answer"] = 0.75
        elif said.unknown:
            sure["quote_request"] = max(sure.get("quote_request", 0.0), 0.6)
        if said.name is not None:
            sure["name"] = 0.9
        if "deny" in sure and ordered:
            sure["correction"] = 0.8
        sure = {name: confidence for name, confidence in sure.items() if confidence > 0}
        says = any(token.kind == "number" for token in self.tokens)
        if not sure and (says or self.words_said > self.laughed):
            sure["off_topic"] = 0.4
        ranked = sorted(sure.items(), key=lambda entry: -entry[1])
        return tuple(Intent(name, confidence) for name, confidence in ranked)

    def _is_guessed(self, start: int, end: int) -> bool:
        """Whether a decision is read out of a misspelling of a word that is said of other
        things too: "mandame" is no "mandale"; but "acpeto" can be nothing else."""
        corrected = any(self.raw[at] != self.keys[at] for at in range(start, end))
        return corrected and not lx.ACCEPT_KEYS.intersection(self.keys[start:end])

    def _refuses_the_price(self, start: int, end: int) -> bool:
        """ "no acepto ese precio", "así no lo acepto, es mucho": another price would do."""
        accepts = lx.ACCEPT_KEYS.intersection(self.keys[start:end])
        if accepts and (self.has_cue("price_objection") or self.key(start - 1) == _SO):
            return True
        return any(
            self.keys[at] in lx.PRICE_KEYS
            for at in range(max(0, start - 2), min(end + 4, len(self.keys)))
            if self.same_sentence(at, start)
        )


def _takes_out(said: Understanding) -> bool:
    """Whether it is told what is not wanted."""
    return any(
        item.anchors is False or item.freight is False
        or any(sides == 0 for _, sides in item.finishes or ())
        for item in said.items
    )  # fmt: skip


def _numbers_of(option: Item) -> Iterator[Decimal]:
    if option.thickness_mm is not None:
        yield option.thickness_mm
        yield option.thickness_mm / 10
    for finish in option.finishes or ():
        yield Decimal(finish[1])
    if option.area_m2 is not None and option.length_m is None:
        yield option.area_m2


def _agrees(item: Item, option: Item) -> bool:
    """Whether an item says all that the option says."""
    return all(
        getattr(option, each.name) is None or getattr(option, each.name) == getattr(item, each.name)
        for each in fields(Item)
    )


def _said_of(item: Item, option: Item) -> int:
    """How much of an option the item says; -1 where it says something else."""
    same = 0
    for each in fields(Item):
        said, offered = getattr(item, each.name), getattr(option, each.name)
        if said is None or each.name == "place":
            continue
        if offered is not None and said != offered:
            return -1
        same += said == offered
    return same


def _phone(digits: str, plus: bool) -> str | None:
    """The number as E.164 where it is one of Uruguay, Argentina, or written with its +."""
    candidates: Iterable[tuple[str, str | None]] = (
        [("+" + digits, None)] if plus else [(digits, "UY"), (digits, "AR"), ("+" + digits, None)]
    )
    for number, region in candidates:
        try:
            parsed = phonenumbers.parse(number, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(parsed):
            return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    return None
