"""From the text a customer typed to words and numbers.

Keeps secret how people write in chats: accents left out, letters repeated, HTML pasted in,
control characters, numbers in both decimal styles or in words, units glued to numbers
("7x3,6m"), and the usual misspellings. What comes out is a flat tuple of tokens; what the
tokens mean together is somebody else's matter.

Everything here is linear in the length of the text: one pass per step, and no pattern that
can backtrack further than a fixed number of characters.
"""

import html
import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from agents.conversation import lexicon

Kind = Literal["word", "number", "mark"]

MAX_TEXT_CHARS: Final = 20_000  # twice the longest text that the front door must answer
MAX_TOKENS: Final = 2_000  # 10 kB of prose have some 1,900

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe0e\ufe0f\ufeff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_TAG = re.compile(r"</?[A-Za-z!][^<>\n]{0,200}>")
_LAUGHTER_RUN = re.compile(r"([^\W\d_])\1{2,}")
_TOKEN = re.compile(
    r"(?P<number>\d+(?:[.,]\d+)*(?:['’]\d+)?|(?<![\w.,])[.,]\d+)"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)"
    r"|(?P<mark>[^\w\s]|_|\n)"
)
_UNITS_GLUED: Final = frozenset({"u", "un", "ud", "uds", "unid"})  # "10u"
_UNITS_APART: Final = frozenset({"ud", "uds"})
_SIGNS: Final = str.maketrans(
    {"½": " 1/2", "¼": " 1/4", "¾": " 3/4"} | dict.fromkeys("👍👌✅🤝✔", " ok ") | {"👎": " no "}
)
_FRACTIONS: Final = {
    ("1", "2"): Decimal("0.5"),
    ("1", "4"): Decimal("0.25"),
    ("3", "4"): Decimal("0.75"),
}


class Token(NamedTuple):
    """A word, a number or a punctuation mark.

    `text` is what was typed, `word` the word without accents and case and with common chat
    spellings undone, `key` the same as it sounds in Spanish: compare words by their key.
    A number has at least one value; with two ("1.250") it can be read both ways, the first
    value being the one with thousands. An unreadable number ("1,2,3") has none.
    `glued` says that nothing stands between this token and the one before it.
    """

    kind: Kind
    text: str
    word: str = ""
    key: str = ""
    values: tuple[Decimal, ...] = ()
    glued: bool = False
    spelled: bool = False

    @property
    def value(self) -> Decimal | None:
        """The number, where it can be read in one way only."""
        return self.values[0] if len(self.values) == 1 else None


def read(text: str) -> tuple[Token, ...]:
    """Split a text into tokens, MAX_TOKENS of MAX_TEXT_CHARS at most. Never raises."""
    return tuple(_join_numbers(_join_words(_split(_clean(text)))))


def _clean(text: str) -> str:
    text = text[:MAX_TEXT_CHARS]
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    if not text.isascii():
        text = _INVISIBLE.sub("", text).translate(_SIGNS)
        text = unicodedata.normalize("NFKC", text)[: 2 * MAX_TEXT_CHARS]
    return _CONTROL.sub(" ", text)


def _split(text: str) -> list[Token]:
    tokens: list[Token] = []
    end_before = -1
    for found in _TOKEN.finditer(text):
        if len(tokens) >= MAX_TOKENS:
            break
        raw = found.group()
        glued = found.start() == end_before
        end_before = found.end()
        if found.lastgroup == "number":
            tokens.append(Token("number", raw, values=_values(raw), glued=glued))
        elif found.lastgroup == "mark":
            tokens.append(Token("mark", raw, word=raw, key=raw, glued=glued))
        else:
            after_number = bool(tokens) and tokens[-1].kind == "number"
            if after_number and raw.lower() in (_UNITS_GLUED if glued else _UNITS_APART):
                raw = "unidades"
            for position, part in enumerate(_parts(raw, after_number and glued)):
                # "mx" after a number is two words: metres, times
                tokens.append(_word(part, glued or position > 0))
    return tokens


def _parts(raw: str, after_number: bool) -> tuple[str, ...]:
    low = raw.lower()
    if len(low) > 3 and low[-1] == "x" and lexicon.key_of(low[:-1]) in lexicon.NUMBERS:
        return raw[:-1], raw[-1]  # "seisx4"
    if after_number and low[0] == "x" and lexicon.key_of(low[1:]) in lexicon.NUMBERS:
        return raw[0], raw[1:]
    if after_number and len(low) > 1 and low[-1] == "x" and low[:-1] in lexicon.UNITS:
        return raw[:-1], raw[-1]
    if after_number and len(low) > 1 and low[0] == "x" and low[1:] in lexicon.UNITS:
        return raw[0], raw[1:]
    return (raw,)


def _word(raw: str, glued: bool) -> Token:
    word, key = _spelling(raw)
    return Token("word", raw, word=word, key=key, glued=glued)


@lru_cache(maxsize=8192)
def _spelling(raw: str) -> tuple[str, str]:
    word = _LAUGHTER_RUN.sub(r"\1", lexicon.fold(raw)).replace("’", "'")
    word = lexicon.CHAT_SPELLINGS.get(word, word)
    return word, lexicon.key_of(word)


def _values(raw: str) -> tuple[Decimal, ...]:
    """The ways to read digits with separators.

    A lone separator before exactly three digits can be of thousands or of decimals. With
    zeros at the end it is of thousands for a number of a thousand and more ("1.500"): the
    caller still gets both, because a length of 1.500 is a metre and a half.
    """
    if not raw[-1].isdigit() or "'" in raw or "’" in raw:
        return ()  # 6'5 may be six and a half, or six feet five
    groups = re.split(r"[.,]", raw)
    if any(len(group) > 12 for group in groups) or len(groups) > 5:
        return ()
    separators = [char for char in raw if char in ".,"]
    if not separators:
        return (Decimal(raw),)
    if len(separators) == 1:
        whole, part = groups
        plain = Decimal(f"{whole or '0'}.{part}")
        if len(part) == 3 and 1 <= len(whole) <= 3 and whole[0] != "0":
            return Decimal(whole + part), plain
        return (plain,)
    thousands_ok = all(len(group) == 3 for group in groups[1:-1]) and 1 <= len(groups[0]) <= 3
    if not thousands_ok:
        return ()
    if len(set(separators)) == 1:
        return (Decimal("".join(groups)),) if len(groups[-1]) == 3 else ()
    if len(set(separators[:-1])) == 1 and separators[-1] != separators[0]:
        return (Decimal("".join(groups[:-1]) + "." + groups[-1]),)
    return ()


def _join_words(tokens: Sequence[Token]) -> list[Token]:
    """What is written apart and is one word: "m2", "s/" (sin), "c/u"; "m." loses its dot."""
    joined: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        after = tokens[at + 1] if at + 1 < len(tokens) else None
        if (
            token.word == "u"
            and joined
            and joined[-1].kind == "number"
            and after is not None
            and after.kind != "word"
            and not after.text.startswith(("8", "11"))  # "10 u 11"
        ):
            joined.append(_word("unidades", token.glued))
            at += 1
            continue
        if token.kind == "word" and after is not None and after.glued:
            unit = lexicon.UNITS.get(token.word)
            caret = after.text == "^" and at + 2 < len(tokens)
            if unit == "m" and (after.text == "2" or (caret and tokens[at + 2].text == "2")):
                joined.append(token._replace(text=f"{token.text}2", word="m2", key="m2"))
                at += 3 if caret else 2
                continue
            if after.text == "/" and _word_at(tokens, at) == _word_at(tokens, at + 2) == "m":
                joined.append(token._replace(text="m/m", word="mm", key="mm"))
                at += 3
                continue
            if after.text == "/" and token.word in ("s", "c"):
                each = at + 2 < len(tokens) and tokens[at + 2].word == "u"
                word = "cada" if each else "sin" if token.word == "s" else "con"
                joined.append(token._replace(word=word, key=lexicon.key_of(word)))
                at += 3 if each else 2
                continue
            if after.text == "." and unit is not None and _goes_on(tokens, at + 2):
                joined.append(token)
                at += 2
                continue
        joined.append(token)
        at += 1
    return joined


def _word_at(tokens: Sequence[Token], at: int) -> str:
    return tokens[at].word if at < len(tokens) else ""


def _goes_on(tokens: Sequence[Token], at: int) -> bool:
    return at < len(tokens) and tokens[at].kind != "mark" and not tokens[at].text[0].isupper()


def _join_numbers(tokens: Sequence[Token]) -> list[Token]:
    """Words for numbers, halves and fractions become number tokens."""
    joined: list[Token] = []
    at = 0
    while at < len(tokens):
        token, size = _dozens(tokens, at)
        if token is None:
            token, size = _spelled_number(tokens, at)
        if token is None and tokens[at].kind == "number":
            token, size = _fraction(tokens, at)
            token = token or tokens[at]
            size = max(size, 1)
        if token is None:
            joined.append(tokens[at])
            at += 1
            continue
        at += size
        token, size = _with_half(token, tokens, at)
        at += size
        token, size = _with_hundredths(token, tokens, at)
        at += size
        token, size = _spoken_hundredths(token, tokens, at, joined)
        at += size
        joined.append(token)
    return joined


def _spoken_hundredths(
    token: Token, tokens: Sequence[Token], at: int, before: Sequence[Token]
) -> tuple[Token, int]:
    """ "siete cincuenta por tres veinte", "largo siete cincuenta": 7.50, as prices are said too."""
    if not token.spelled or token.value is None or not token.value < 10:
        return token, 0
    part, size = _below_hundred(tokens, at)
    if part is None or part < 10 or part % 5 or token.value != int(token.value):
        return token, 0
    second = (
        len(before) >= 2
        and before[-1].key in lexicon.TIMES_KEYS
        and before[-2].spelled
        and before[-2].value is not None
        and before[-2].value != int(before[-2].value)
    )
    after = at + size + (_key(tokens, at + size) == "de")
    of_side = _key(tokens, after) in lexicon.SIDES or (before and before[-1].key in lexicon.SIDES)
    if not (second or of_side or _key(tokens, at + size) in lexicon.TIMES_KEYS):
        return token, 0
    text = " ".join([token.text, *(piece.text for piece in tokens[at : at + size])])
    return token._replace(values=(token.value + Decimal(part) / 100,), text=text), size


def _dozens(tokens: Sequence[Token], at: int) -> tuple[Token | None, int]:
    """ "una docena de", "media docena", "un par de", "3 docenas", "a couple of"."""
    first = tokens[at]
    place, times = at + 1, Decimal(1)
    if first.key in lexicon.PARTS:
        times = Decimal(lexicon.PARTS[first.key])
        place += _key(tokens, place) == "a"
    elif first.kind == "number" and first.value is not None:
        times = first.value
    elif first.key in lexicon.NUMBERS:
        times = Decimal(lexicon.NUMBERS[first.key])
    elif first.key not in lexicon.ONE_KEYS:
        return None, 0
    group = lexicon.GROUPS.get(_key(tokens, place))
    if group is None:
        return None, 0
    size = place + 1 - at
    following = tokens[at + size + 1] if at + size + 1 < len(tokens) else None
    of_things = following is not None and following.kind == "word"
    if _key(tokens, at + size) in ("de", "of") and of_things:
        size += 1
    return _number(tokens[at : at + size], times * group), size


def _with_hundredths(token: Token, tokens: Sequence[Token], at: int) -> tuple[Token, int]:
    """ "siete con veinte por tres": said like money, of metres."""
    if token.value is None or token.value >= 100 or _key(tokens, at) not in ("kon", "con"):
        return token, 0
    part, size = _below_hundred(tokens, at + 1)
    if part is None and at + 1 < len(tokens) and tokens[at + 1].text.isdigit():
        part, size = int(tokens[at + 1].text[:3]), 1
    if part is None or not 10 <= part <= 99 or token.value != int(token.value):
        return token, 0
    if _key(tokens, at + 1 + size) not in lexicon.TIMES_KEYS:
        return token, 0
    value = token.value + Decimal(part) / 100
    text = " ".join([token.text, *(piece.text for piece in tokens[at : at + 1 + size])])
    return token._replace(values=(value,), text=text), 1 + size


def _spelled_number(tokens: Sequence[Token], at: int) -> tuple[Token | None, int]:
    """ "ciento veinticinco", "treinta y cinco", "seis coma cinco", "one hundred", "un" (metro)."""
    first = tokens[at]
    if first.kind != "word":
        return None, 0
    total: Decimal | None = None
    size = 0
    if first.key == "mil" and _is_unit(tokens, at + 1):
        return _number(tokens[at : at + 1], Decimal(1000)), 1
    if first.key == "a" and at and tokens[at - 1].key in lexicon.PARTS:
        return None, 0  # "half a meter"
    if first.key in lexicon.ONE_KEYS:
        # an article unless something is measured in it
        if first.word in lexicon.EN_ONE and _key(tokens, at + 1) in lexicon.HUNDRED_KEYS:
            total, size = Decimal(100), 2
        elif (
            _is_side_of_one(tokens, at)
            or _is_unit(tokens, at + 1)
            or (_key(tokens, at + 1) in lexicon.TIMES_KEYS and _is_numeric(tokens, at + 2))
        ):
            return _number(tokens[at : at + 1], Decimal(1)), 1
    elif first.key in lexicon.HUNDREDS:
        hundred = lexicon.HUNDREDS[first.key]
        rest, rest_size = _below_hundred(tokens, at + 1)
        if rest is not None and first.key not in lexicon.HUNDRED_ALONE:
            total, size = Decimal(hundred + rest), 1 + rest_size
        elif first.key not in lexicon.NEVER_ALONE:
            total, size = Decimal(hundred), 1
    else:
        small, small_size = _below_hundred(tokens, at)
        if small is not None:
            total, size = Decimal(small), small_size
    if total is None:
        return None, 0
    if (
        size == 1
        and _key(tokens, at + 1) in lexicon.HUNDRED_KEYS
        and total < 10
        and first.word in lexicon.EN_NUMBERS
    ):
        total, size = total * 100, 2
    if first.word in lexicon.EN_NUMBERS or first.word in lexicon.EN_ONE:
        after = at + size
        if total % 100 == 0:
            skip = 1 if _key(tokens, after) == "and" else 0
            rest, rest_size = _below_hundred(tokens, after + skip)
            if rest is not None:
                total, size = total + rest, size + skip + rest_size
    if _key(tokens, at + size) == "mil" and total < 1000:
        total, size = total * 1000, size + 1
    if _key(tokens, at + size) in lexicon.DECIMAL_POINT_KEYS:
        digits, digits_size = _below_hundred(tokens, at + size + 1)
        if digits is not None:
            total += Decimal(f"0.{digits}")
            size += 1 + digits_size
    return _number(tokens[at : at + size], total), size


def _below_hundred(tokens: Sequence[Token], at: int) -> tuple[int | None, int]:
    key = _key(tokens, at)
    value = lexicon.NUMBERS.get(key)
    if value is None:
        return None, 0
    if value % 10 == 0 and value >= 20:
        after = _key(tokens, at + 1)
        if after in lexicon.AND_KEYS:
            unit = lexicon.NUMBERS.get(_key(tokens, at + 2), lexicon.UN.get(_key(tokens, at + 2)))
            if unit is not None and unit < 10 and tokens[at].word not in lexicon.EN_NUMBERS:
                return value + unit, 3
        elif tokens[at].word in lexicon.EN_NUMBERS:
            skip = 1 if after == "-" else 0
            unit = lexicon.NUMBERS.get(_key(tokens, at + 1 + skip))
            if unit is not None and unit < 10:
                return value + unit, 2 + skip
    return value, 1


def _fraction(tokens: Sequence[Token], at: int) -> tuple[Token | None, int]:
    """ "1/2" alone, or "6 1/2"."""
    whole = tokens[at]
    half = _slashed(tokens, at)
    if half is not None:
        return _number(tokens[at : at + 3], half), 3
    half = _slashed(tokens, at + 1)
    if half is not None and whole.value is not None and not tokens[at + 1].glued:
        return _number(tokens[at : at + 4], whole.value + half), 4
    return None, 0


def _slashed(tokens: Sequence[Token], at: int) -> Decimal | None:
    if at + 2 >= len(tokens) or tokens[at + 1].text not in "/\u2044":
        return None
    after = tokens[at + 3] if at + 3 < len(tokens) else None
    if after is not None and after.glued and after.text in "/\u2044":
        return None
    return _FRACTIONS.get((tokens[at].text, tokens[at + 2].text))


def _with_half(token: Token, tokens: Sequence[Token], at: int) -> tuple[Token, int]:
    """ "6 y medio"; "6 and a half"."""
    if token.value is None or _key(tokens, at) not in lexicon.AND_KEYS:
        return token, 0
    article = 1 if _key(tokens, at + 1) == "a" else 0
    part = lexicon.PARTS.get(_key(tokens, at + 1 + article))
    if part is None:
        return token, 0
    used = tokens[at : at + 2 + article]
    text = " ".join([token.text, *(piece.text for piece in used)])
    return token._replace(values=(token.value + Decimal(part),), text=text), 2 + article


def _number(used: Sequence[Token], value: Decimal) -> Token:
    text = " ".join(token.text for token in used)
    spelled = all(token.kind != "number" for token in used)
    return Token("number", text, values=(value,), glued=used[0].glued, spelled=spelled)


def _key(tokens: Sequence[Token], at: int) -> str:
    return tokens[at].key if at < len(tokens) else ""


def _is_unit(tokens: Sequence[Token], at: int) -> bool:
    return at < len(tokens) and tokens[at].kind == "word" and tokens[at].word in lexicon.UNITS


def _is_side_of_one(tokens: Sequence[Token], at: int) -> bool:
    """ "seis por uno", "6 de largo y uno de ancho"."""
    if tokens[at].key not in ("uno", "one"):
        return False
    after, then = _key(tokens, at + 1), _key(tokens, at + 2)
    if after == "de" and then in lexicon.SIDES:
        return at + 3 >= len(tokens) or tokens[at + 3].kind != "number"
    return at >= 2 and tokens[at - 1].key in lexicon.TIMES_KEYS and (
        _is_numeric(tokens, at - 2) or _is_unit(tokens, at - 2)
    )  # fmt: skip


def _is_numeric(tokens: Sequence[Token], at: int) -> bool:
    if at >= len(tokens):
        return False
    token = tokens[at]
    return token.kind == "number" or token.key in lexicon.NUMBERS or token.key in lexicon.ONE_KEYS
