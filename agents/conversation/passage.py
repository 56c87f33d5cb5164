"""A message as words in sentences, with the cues that stand in it.

Keeps secret how misspelt words are led to known ones before anything is looked up, where a
sentence ends, and which of the cues count that overlap or that mean something else in the
middle of a sentence ("si" is no yes in "si es de 100").
"""

from collections.abc import Sequence
from typing import Final

from agents.conversation import lexicon as lx
from agents.conversation.lexicon import keys
from agents.conversation.reading import Token
from agents.conversation.vocabulary import MAX_UNKNOWN_WORDS, Phrases, Vocabulary

_CUES: Final = Phrases(
    (phrase, intent) for intent, phrases in lx.CUES.items() for phrase in phrases
)
ENDS: Final = frozenset({".", "?", "!", ";", "\n", "¿", "¡", "…"})
# One of these words says it only when it is all that was said.
_ONLY_ALONE: Final = {
    "stop": keys("baja stop desuscribir desuscribirme bloquear"),
    "human": keys("persona humano humana vendedor vendedora agente agent person operator alguien"),
    "rejection": keys("cancelar cancela dejalo dejala"),
}
_POLITE: Final = keys("por favor please hola buenas")
_BEFORE_A_DECISION: Final = keys(
    "si ok dale bueno listo perfecto genial joya ta barbaro entonces ya pues yo nosotros hola "
    "buenas gracias muchas claro obvio yes great perfect thanks and so then we i well y eso "
    "excelente buenisimo impecable la las el los al final ahora mejor nomas nada"
)
_NOW: Final = lx.key_of("ahora")  # "ahora sí" sets no condition
_CLAUSE_ENDS: Final = ENDS | {",", ":", "(", ")"}
_CLAUSE_WORDS: Final = 8  # as far as is looked for what begins a clause
_OTHER_DAYS: Final = lx.DAY_KEYS | keys("mañana despues luego tomorrow later")
_CONDITIONS: Final = keys("si if cuando when pero but siempre solo unless salvo hasta until")


class Passage:
    """The words of a message, for whoever makes sense of them.

    `keys` are the words as they are compared, spelling corrected, "#" for a number; `raw`
    the same as typed; `said` all of them. `sentence` is the number of each token's sentence,
    which `starts` and `ends` bound. `cues` are (start, end, intent); `cues_in` the same by
    sentence. `decisions` are the places of words like "no me sirve".
    """

    def __init__(self, tokens: Sequence[Token], words: Vocabulary) -> None:
        self.tokens = tokens
        self.words = words
        self.raw = [token.key for token in tokens]
        self.keys = self._corrected_keys()
        self.said = frozenset(self.keys)
        self.sentence = self._sentences()
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        for at, number in enumerate(self.sentence):
            self.starts.setdefault(number, at)
            self.ends[number] = at + 1
        self.words_said = sum(1 for token in tokens if token.kind == "word")
        self.words_meant = self.words_said - sum(key in _POLITE for key in self.keys)
        self.cues: list[tuple[int, int, str]] = []
        self.cues_in: dict[int, list[tuple[int, int, str]]] = {}
        self.decisions: set[int] = set()
        self._find_cues()
        self.cued = {intent for *_, intent in self.cues}

    def key(self, at: int) -> str:
        """The key at a place, "" outside of the message."""
        return self.keys[at] if 0 <= at < len(self.keys) else ""

    def same_sentence(self, a: int, b: int) -> bool:
        return self.sentence[a] == self.sentence[b]

    def is_unknown_word(self, at: int) -> bool:
        """Whether there is a word that means nothing to us."""
        return (
            0 <= at < len(self.tokens)
            and self.tokens[at].kind == "word"
            and len(self.keys[at]) > 1
            and self.keys[at] not in self.words.known
            and self.tokens[at].word not in self.words.known
        )

    def has_cue(self, intent: str) -> bool:
        return intent in self.cued

    def is_question(self, sentence: int) -> bool:
        """By its mark, or by its first word where marks are left out."""
        start, end = self.starts.get(sentence, 0), self.ends.get(sentence, 0)
        if end and self.tokens[end - 1].text in ("?", "¿"):
            return True
        before = start - 1
        if before >= 0 and self.tokens[before].text == "¿":
            return True
        while start < end and (
            self.tokens[start].kind == "mark" or self.keys[start] in ("y", "and", "pero")
        ):
            start += 1
        return start < end and self.keys[start] in lx.QUESTION_KEYS

    def instead(self, at: int) -> bool:
        """ "en vez de 100", "instead of 100"."""
        back = at - 1
        while back >= 0 and self.key(back) in lx.OF_KEYS | lx.ARTICLE_KEYS:
            back -= 1
        return self.key(back) in ("bes", "vez", "lugar", "instead")

    def _corrected_keys(self) -> list[str]:
        known, corrected = self.words.known, self.words.corrected
        budget = MAX_UNKNOWN_WORDS
        keys = []
        for token in self.tokens:
            key = token.key if token.kind != "number" else "#"
            if token.kind == "word" and key not in known and token.word not in known and budget:
                budget -= 1
                key = corrected(key)
            keys.append(key)
        return keys

    def _sentences(self) -> list[int]:
        number = 0
        sentences = []
        for token in self.tokens:
            sentences.append(number)
            if token.kind == "mark" and token.text in ENDS:
                number += 1
        return sentences

    def _find_cues(self) -> None:
        """Every cue of the message; one inside a longer one of another kind does not count."""
        spans: list[tuple[int, int, str]] = []
        for at in range(len(self.tokens)):
            spans += ((at, end, intent) for intent, end in _CUES.all_at(self.keys, at))
        self.laughed = 0  # words that say nothing
        self.answered_to = 0  # a message opens with answers and greetings up to here
        spans.sort(key=lambda span: (span[0], -span[1]))
        furthest: tuple[int, int] = (-1, -1)
        for start, end, intent in spans:
            inside = furthest[0] <= start and end <= furthest[1] and (start, end) != furthest
            if not inside and self._counts(start, end, intent):
                self.cues.append((start, end, intent))
                if intent in ("acceptance", "rejection"):
                    self.decisions.update(range(start, end))
                self.cues_in.setdefault(self.sentence[start], []).append((start, end, intent))
            if end > furthest[1]:
                furthest = (start, end)

    def _counts(self, start: int, end: int, intent: str) -> bool:
        if end - start == 1 and self.keys[start] in _ONLY_ALONE.get(intent, ()):
            opens = not start or self.keys[start - 1] in lx.FILLER_KEYS
            return self.words_meant <= 2 and (opens or self.tokens[start - 1].kind == "mark")
        if intent == "laughter":
            self.answered_to = end
            self.laughed += end - start
            return False
        if intent in ("affirm", "deny"):
            return self._opens(start, end)
        if intent in ("thickest", "thinnest"):
            return not self.is_question(self.sentence[start])
        if intent == "ask_description" and self.keys[start:end] == ["que", "es"]:
            return self.key(end) not in ("de", "#")  # "el baño, que es de 2x2"
        if intent == "stop" and self.keys[end - 1] in ("mas", "more"):
            return self.key(end) not in ("de", "#", "than")  # "no me manden más de 10 paneles"
        if intent in ("greeting", "thanks") and start - self.answered_to <= 1:
            self.answered_to = end
        return True

    def decides(self, start: int, end: int) -> bool:
        """Whether "lo compro" is a decision: its clause begins with it, sets no condition, and
        asks nothing. "si me hacés precio lo compro" and "¿y si lo compro?" decide nothing."""
        first = self.starts[self.sentence[start]]
        for at in range(start - 1, first - 1, -1):
            if self.tokens[at].text in _CLAUSE_ENDS:
                break
            if self.tokens[at].kind == "mark":
                continue  # an emoji
            if start - at > _CLAUSE_WORDS or self.keys[at] not in _BEFORE_A_DECISION:
                return False
            opens = at == 0 or self.tokens[at - 1].text in _CLAUSE_ENDS
            if self.tokens[at].word == "si" and not opens and self.raw[at - 1] != _NOW:
                return False
        for at in range(end, min(end + 2 * _CLAUSE_WORDS, len(self.tokens))):
            token = self.tokens[at]
            if token.text in _CLAUSE_ENDS:
                return token.text != "?"
            if self._is_of_a_code(at):
                continue
            if token.kind == "number" or self.keys[at] in _CONDITIONS:
                return False
            if self.keys[at] in _OTHER_DAYS and not {"para"} & set(self.keys[at - 2 : at]):
                return False  # "compro el viernes"
        return True

    def _is_of_a_code(self, at: int) -> bool:
        """The numbers of "COT-2026-000001"."""
        token = self.tokens[at]
        return token.kind == "number" and token.glued and self.key(at - 1) == "-"

    def _opens(self, start: int, end: int) -> bool:
        """Whether "si" or "no" is an answer: nothing but other answers stands before it in
        its sentence, and "si" is no condition ("si es de 100")."""
        sentence = self.sentence[start]
        before = max(self.answered_to, self.starts[sentence])
        if start - before > 3 or any(self.tokens[at].kind != "mark" for at in range(before, start)):
            return False
        if self.tokens[start].word in ("si", "va", "eso", "ese", "esa") and end < len(self.tokens):
            short = self.ends[sentence] - start <= 3
            if self.tokens[end].kind == "word" and not short:
                return False
        self.answered_to = end
        return True
