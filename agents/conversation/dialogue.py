"""What to answer: the course of a conversation, up to a quote and after it.

Keeps secret what is asked when, how a message changes what was said before, and how often a
question may come back. Pure: state and understanding in, state and reply out; prices come
from the quote agent, texts from the message catalogues.

A turn that needs a price has the action `request_quote`: the caller gets the quote and asks
`present_quote` (or `quote_refused`) for the reply, with the state of that turn. One that
accepts or rejects a quote has its reply already; where that cannot be done, the caller asks
`quote_not_settled` for another.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from agents.catalogue import Catalogue, Language, Product
from agents.conversation.meaning import Field, Hint, Item, Unclear, Understanding
from agents.conversation.wording import all_of, date, money, number, one_of, say

Action = Literal["answer", "request_quote", "accept_quote", "reject_quote"]
# What becomes true with the commit of a turn: a person answers from now on; nothing is sent
# to this customer unasked.
Effect = Literal["hand_over", "opt_out"]
Tipo = Literal["cotizacion", "informacion", "pregunta", "seguimiento", "general"]

MAX_DECIMALS: Final = 6  # of a measure, in metres: what the price calculation takes
MAX_ITEMS: Final = 60  # of one quote
_LOST_TURNS: Final = 2  # not understood in a row, before a person is offered
_ASK_TEXTS: Final = 3  # wordings of a question; none is used more than twice
_CONFIRM_TEXTS: Final = 3
_ASKED_KEPT: Final = 30  # questions whose count is remembered
_PDF: Final = "/api/quotes/{id}.pdf"  # where the front door has it, for whoever has the id
_BLOCKING: Final[tuple[Field, ...]] = (
    "de_quien", "producto", "espesor", "dimensiones", "cantidad", "color", "terminaciones",
)  # fmt: skip


@dataclass(frozen=True)
class Quoted:
    """What the conversation remembers of the last quote that the customer was given.

    `standing` is the quote's state as the customer knows it: "sent", "accepted", "rejected"
    or "expired". `valid_until` is ISO 8601.
    """

    code: str
    description: str
    total: str
    currency: str
    id: str = ""
    standing: str = "sent"
    valid_until: str = ""


@dataclass(frozen=True)
class State:
    """A conversation between two messages.

    `items` is what is to be quoted, `open_fields` what is not settled of it though a value
    may stand there: (number of the item, field). `focus` is the item asked about last,
    `asked` the fields asked for, `options` the readings offered to choose from, of the
    field `options_field`; "item" there: the choice says which item `held` changes.
    `quoted_items` are those of the last quote, to go back to; `quoted_before`: it was made
    in a conversation before this one, and what is asked for now has nothing to do with it.
    `asked_times` counts each question. `preface` is to be said before the coming quote.
    `places`: how many roofs or walls it is, told before their size.
    `person_offered`: the last reply offered a person. `stopped`: nothing may be sent to this
    customer unasked.
    """

    language: Language = "es"
    name: str | None = None
    items: tuple[Item, ...] = ()
    open_fields: tuple[tuple[int, str], ...] = ()
    focus: int = 0
    asked: tuple[str, ...] = ()
    options: tuple[Item, ...] = ()
    options_field: str = ""
    held: Item | None = None
    asked_times: tuple[tuple[str, int], ...] = ()
    about: str | None = None
    quoted: Quoted | None = None
    quoted_items: tuple[Item, ...] = ()
    quoted_before: bool = False
    settled: bool = False
    places: int | None = None
    name_asked: bool = False
    greeted: bool = False
    lost: int = 0
    stopped: bool = False
    person_offered: bool = False
    preface: tuple[str, ...] = ()
    objections: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """For JSON or BSON; Decimals as strings. `from_document` gives an equal state."""
        document = {each.name: getattr(self, each.name) for each in fields(self)}
        document["items"] = [item.to_document() for item in self.items]
        document["options"] = [item.to_document() for item in self.options]
        document["quoted_items"] = [item.to_document() for item in self.quoted_items]
        document["held"] = None if self.held is None else self.held.to_document()
        document["quoted"] = None if self.quoted is None else dict(vars(self.quoted))
        document["open_fields"] = [list(each) for each in self.open_fields]
        document["asked_times"] = [list(each) for each in self.asked_times]
        document["asked"] = list(self.asked)
        document["preface"] = list(self.preface)
        document["objections"] = list(self.objections)
        return document

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> "State":
        """Fields that are missing have their defaults, those that are unknown are left out."""
        known = {each.name for each in fields(State)}
        values = {name: value for name, value in document.items() if name in known}
        for name in ("items", "options", "quoted_items"):
            values[name] = tuple(Item.from_document(each) for each in values.get(name, ()))
        if values.get("held") is not None:
            values["held"] = Item.from_document(values["held"])
        if values.get("quoted") is not None:
            values["quoted"] = Quoted(**values["quoted"])
        for name in ("open_fields", "asked_times"):
            values[name] = tuple((first, second) for first, second in values.get(name, ()))
        for name in ("asked", "preface", "objections"):
            values[name] = tuple(values.get(name, ()))
        return State(**values)

    def hint(self) -> Hint:
        """What the next message has to be understood with."""
        item = self.items[self.focus] if self.focus < len(self.items) else Item()
        missing_side = None
        if "dimensiones" in self.asked and (item.length_m is None) != (item.width_m is None):
            missing_side = "length" if item.length_m is None else "width"
        return Hint(
            asked=self.asked,
            items=self.items,
            product=item.product,
            options=self.options,
            language=self.language,
            missing_side=missing_side,
        )


@dataclass(frozen=True)
class Turn:
    """A reply, with what the front ends show beside it.

    `items` are the things to be priced, in the shape that a quote is requested in, when the
    action is `request_quote`; `text` is then empty. `quote_id` is the quote that the action is
    about: the one to accept or reject, or the one that the new quote supersedes, if any.
    `needs` are ids of fields still missing, `actions` suggested answers.
    """

    state: State
    text: str
    action: Action = "answer"
    tipo: Tipo = "general"
    confidence: float = 1.0
    needs: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    items: tuple[dict[str, Any], ...] = ()
    quote_id: str | None = None
    effects: tuple[Effect, ...] = ()


def reply(state: State, understanding: Understanding, catalogue: Catalogue) -> Turn:
    """Answer a message that was understood with the hint of this state."""
    return _Turning(state, understanding, catalogue).turn()


def present_quote(state: State, quote: Mapping[str, Any]) -> Turn:
    """Word a quote for the customer.

    `quote` is what the quote agent answers: `code`, `description`, `total`, `tax`,
    `currency`, `valid_until` (ISO 8601), `unit_price_per_m2` (None where items differ) and
    `items` with `description` and `total` each; numbers as strings.
    """
    language = state.language
    currency = quote["currency"]
    total = money(language, Decimal(quote["total"]), currency)
    tax = money(language, Decimal(quote["tax"]), currency)
    again = "_new_version" if state.quoted is not None and not state.quoted_before else ""
    parts = list(state.preface)
    lines: list[str] = []
    if len(quote["items"]) > 1:
        parts.append(say(language, f"quote_items{again}", code=quote["code"]))
        lines = [
            say(
                language,
                "quote_line",
                description=item["description"],
                total=money(language, Decimal(item["total"]), currency),
            )
            for item in quote["items"]
        ]
    else:
        description = quote["description"]
        parts.append(say(language, f"quote{again}", code=quote["code"], description=description))
    unit = quote.get("unit_price_per_m2")
    if unit is None:
        closing = [say(language, "quote_total", total=total, tax=tax)]
    else:
        unit = money(language, Decimal(unit), currency)
        closing = [say(language, "quote_total_with_unit", total=total, tax=tax, unit=unit)]
    if quote.get("valid_until"):
        until = datetime.fromisoformat(quote["valid_until"])
        closing.append(say(language, "quote_valid", date=date(language, until)))
    ask_name = state.name is None and not state.name_asked
    if ask_name:
        closing.append(say(language, "ask_name"))
    text = "\n".join(
        [" ".join(parts), *lines, " ".join(closing)] if lines else [" ".join([*parts, *closing])]
    )
    remembered = Quoted(
        code=quote["code"],
        description=quote["description"],
        total=str(quote["total"]),
        currency=currency,
        id=str(quote.get("quote_id", "")),
        valid_until=str(quote.get("valid_until") or ""),
    )
    return Turn(
        state=replace(
            state,
            quoted=remembered,
            quoted_items=state.items,
            quoted_before=False,
            settled=True,
            preface=(),
            name_asked=state.name_asked or ask_name,
            asked=("nombre",) if ask_name else (),
            asked_times=(),
            options=(),
            options_field="",
        ),
        text=text,
        tipo="cotizacion",
        needs=("nombre",) if ask_name else (),
        actions=(
            say(language, "button_accept"),
            say(language, "button_change"),
            say(language, "button_person"),
        ),
    )


def quote_refused(
    state: State, problems: Sequence[Mapping[str, Any]], catalogue: Catalogue
) -> Turn:
    """Tell the customer what there is, when the quote agent has no price for the items.

    `problems` are its refusal's: `field` such as "items.0.thickness_mm", `code`, `allowed`.
    """
    language = state.language
    notes: list[str] = list(state.preface)
    items = list(state.items)
    open_fields = list(state.open_fields)
    for problem in problems:
        place, name = _refused_field(str(problem["field"]))
        if place >= len(items):
            continue
        allowed = problem.get("allowed") or ()
        notes.append(
            _refusal(language, items[place], name, str(problem["code"]), allowed, catalogue)
        )
        needed = _FIELD_OF.get(name, "dimensiones")
        items[place] = _without(items[place], needed)
        open_fields.append((place, needed))
    state = replace(
        state,
        items=tuple(items),
        open_fields=tuple(dict.fromkeys(open_fields)),
        preface=(),
        settled=False,
    )
    if not notes:
        notes.append(say(language, "refused_other"))
    asking = _Asking(state, catalogue)
    return asking.turn(list(dict.fromkeys(notes)), "cotizacion", 1.0)


def ask_for_missing(
    state: State, problems: Sequence[Mapping[str, Any]], catalogue: Catalogue
) -> Turn:
    """Ask for what the state's items lack, and say what there is where something is not had.

    `problems` are those of `quote_refused`, and of the code "missing".
    """
    refused = [each for each in problems if each["code"] != "missing"]
    if refused:
        return quote_refused(state, refused, catalogue)
    return _Asking(state, catalogue).turn([], "cotizacion", 1.0)


def begin_again(earlier: State, language: Language | None = None) -> State:
    """The state in which a customer's next conversation begins: who it is and the last quote
    are known, nothing is being asked for."""
    return State(
        language=language or earlier.language,
        name=earlier.name,
        quoted=earlier.quoted,
        quoted_items=earlier.quoted_items,
        quoted_before=earlier.quoted is not None,
        name_asked=earlier.name is not None,
        stopped=earlier.stopped,
    )


def with_standing(state: State, standing: str) -> State:
    """The state with what has become of the quote meanwhile: it may have expired, or have been
    accepted elsewhere. `standing` is a quote's state; a draft is as good as sent."""
    if state.quoted is None:
        return state
    standing = "sent" if standing == "draft" else standing
    return replace(state, quoted=replace(state.quoted, standing=standing))


def quote_not_settled(state: State, standing: str) -> Turn:
    """Tell the customer that a quote cannot be accepted or rejected any more.

    `state` is that of the turn which wanted it, `standing` what the quote is instead:
    "expired", "accepted", "rejected", or anything else that the quote agent says.
    """
    quoted = state.quoted
    assert quoted is not None
    told = standing if standing in ("expired", "accepted", "rejected") else "other"
    text = say(state.language, f"not_settled_{told}", code=quoted.code)
    return Turn(
        state=replace(state, quoted=replace(quoted, standing=standing)),
        text=text,
        tipo="seguimiento",
    )


# --- One turn -----------------------------------------------------------------------------


class _Turning:
    """A state on its way to the next one."""

    def __init__(self, state: State, said: Understanding, catalogue: Catalogue) -> None:
        self.said = said
        self.catalogue = catalogue
        self.before = state
        self.language: Language = said.language
        self.state = replace(
            state,
            language=said.language,
            name=said.name or state.name,
            person_offered=False,
            preface=(),
        )
        self.notes: list[str] = []  # what there is instead of what was asked for
        self.answers: list[str] = []

    def turn(self) -> Turn:
        said = self.said
        if said.wants("stop"):
            again = "_already" if self.before.stopped else ""
            turn = self._end(self._say(f"stopped{again}"), "general", stopped=True)
            return replace(turn, effects=("opt_out",))
        if said.wants("restart"):
            self.state = replace(
                self.state,
                items=(),
                open_fields=(),
                quoted=None,
                quoted_before=False,
                settled=False,
            )
        if said.wants("correction") and self.state.quoted_before and not self.state.items:
            # "al final mejor de 150", days later
            self.state = replace(
                self.state, items=self.state.quoted_items, quoted_before=False, settled=True
            )
        before = self.state
        self._greet()
        self._take_choice()
        self._take_items()
        self._check()
        after = self.state
        changed = not self._same(after.items, before.items)
        changed = changed or after.open_fields != before.open_fields
        changed = changed or after.options != before.options
        as_quoted = before.settled and before.items and not changed
        changed = changed or bool(self.notes)
        self._answer_questions()
        if said.wants("human") or (self._takes_the_offer() and not changed):
            return self._hand_over()
        if changed and as_quoted:  # it could not be done: the quote is as it was
            turn = self._end("", "cotizacion")
            return replace(turn, text=turn.text.strip())
        if changed:
            self.state = replace(self.state, settled=False, lost=0)
            return self._go_on("cotizacion")
        return self._without_change()

    def _same(self, items: Sequence[Item], before: Sequence[Item]) -> bool:
        """Whether the things to be quoted are as before; in a quote that was made, what was
        not said is as the catalogue has it: "con flete" changes nothing then."""
        if items == before or not self.before.settled:
            return items == before
        return list(map(self._in_full, items)) == list(map(self._in_full, before))

    def _in_full(self, item: Item) -> Item:
        catalogue = self.catalogue
        return replace(
            item,
            colour=item.colour or catalogue.default_colour.id,
            anchors=catalogue.anchors.included_by_default if item.anchors is None else item.anchors,
            freight=catalogue.freight.included_by_default if item.freight is None else item.freight,
            quantity=1 if item.quantity is None else item.quantity,
            finishes=tuple(each for each in item.finishes or () if each[1] > 0) or None,
        )

    def _say(self, text: str, **facts: str | int) -> str:
        return say(self.language, text, **facts)

    def _greet(self) -> None:
        if self.said.wants("greeting") and not self.before.greeted:
            name = self.state.name
            self.answers.append(self._say("hello_named", name=name) if name else self._say("hello"))
            self.state = replace(self.state, greeted=True)
        elif self.said.name is not None and self.before.name is None:
            self.answers.append(self._say("thanks_name", name=self.said.name))

    def _takes_the_offer(self) -> bool:
        """ "sí", after a person was offered."""
        return self.before.person_offered and self.said.wants("affirm")

    def _hand_over(self) -> Turn:
        turn = self._end(self._say("person"), "general")
        return replace(turn, effects=("hand_over",))

    def _end(self, text: str, tipo: Tipo, **changes: Any) -> Turn:
        """A reply that asks for nothing."""
        state = replace(self.state, asked=(), options=(), options_field="", lost=0, **changes)
        parts = [*self.answers, *self.notes, text]
        return Turn(state, " ".join(parts), tipo=tipo, confidence=self.said.confidence)

    # - what was said about the items -

    def _take_choice(self) -> None:
        """An answer to "do you mean a or b?"."""
        choice, state = self.said.choice, self.state
        if choice is None and self.said.wants("deny") and len(state.options) == 1:
            self.state = replace(state, options=(), options_field="")
            return
        if choice is None or choice >= len(state.options):
            return
        option = state.options[choice]
        if state.options_field == "item" and state.held is not None:
            target = min(choice, len(state.items) - 1)
            self._change(target, state.held)
        elif state.options_field and state.items:
            focus = min(state.focus, len(state.items) - 1)
            items = list(state.items)
            if state.options_field == "dimensiones":
                pieces = None if items[focus].sized else items[focus].quantity
                items[focus] = _without(items[focus], "dimensiones")
                if option.length_m is not None and option.quantity is None:
                    option = replace(option, quantity=pieces)  # "3 paneles", "de 6 metros"
            self.state = replace(state, items=tuple(items))
            self._change(focus, option)
            self._close(focus, state.options_field)
        self.state = replace(self.state, options=(), options_field="", held=None)

    def _take_items(self) -> None:
        self._take_whose()
        self._remove()
        self._remove_it()
        self._make_longer()
        self._take_said_items()
        self._take_places()
        self._take_superlative()

    def _remove_it(self) -> None:
        """ "no, sacalos": the finishes, where one thing has them; otherwise it has to be said."""
        if not self.said.wants("remove_it") or not self.state.items:
            return
        having = [at for at, item in enumerate(self.state.items) if item.finishes]
        if len(having) == 1:
            items = list(self.state.items)
            items[having[0]] = replace(items[having[0]], finishes=None)
            self._set_items(items)
        elif self.state.open_fields:
            left = tuple(each for each in self.state.open_fields if each[1] != "terminaciones")
            self.state = replace(self.state, open_fields=left)
            if self.state.options_field == "terminaciones":
                self.state = replace(self.state, options=(), options_field="")
        else:
            self.notes.append(self._say("change_what"))

    def _make_longer(self) -> None:
        """ "sumale 2 metros al largo", of the only thing; otherwise it has to be said in full."""
        for name, more in self.said.longer:
            items = list(self.state.items)
            now = getattr(items[0], name) if len(items) == 1 else None
            if name == "quantity" and len(items) == 1 and items[0].length_m is not None:
                now = Decimal(now or 1)
            if now is None or now + more <= 0:
                self.notes.append(self._say("size_unclear"))
                continue
            changed: dict[str, Any] = {name: int(now + more) if name == "quantity" else now + more}
            items[0] = replace(items[0], **changed)
            self._set_items(items)

    def _take_places(self) -> None:
        """ "son dos techos", and then a size: of each, or of both?"""
        count = self.said.places or self.state.places
        self.state = replace(self.state, places=count)
        sized = [at for at, item in enumerate(self.state.items) if item.sized]
        if count is None or not sized:
            return
        self.state = replace(self.state, places=None)
        item = self.state.items[sized[0]]
        if len(sized) != 1 or len(self.said.items) != 1 or (item.quantity or 1) > 1:
            return
        if item.length_m is None or self.before.settled:
            return
        if self.said.each:
            self._change(sized[0], Item(quantity=count))
        else:
            options = (replace(_size_of(item), quantity=count), _size_of(item))
            self._open(sized[0], "dimensiones")
            self._offer(sized[0], Unclear("dimensiones", options))

    def _take_superlative(self) -> None:
        """ "el más grueso" answers the question for the thickness."""
        if not self.said.wants("thickest", "thinnest"):
            return
        for place, item in enumerate(self.state.items):
            product = self.catalogue.product(item.product) if item.product else None
            if product is not None and "espesor" in self._missing(place):
                pick = max if self.said.wants("thickest") else min
                self._change(place, Item(thickness_mm=Decimal(pick(product.thicknesses_mm))))

    def _take_said_items(self) -> None:
        said, state = self.said, self.state
        if not said.items:
            return
        chosen = said.choice is not None
        if chosen:
            remaining = [item for item in said.items if not _agrees_with(item, self.before, said)]
        else:
            remaining = list(said.items)
        if not remaining:
            return
        base, first = state.items, remaining[0]
        more = said.added or said.unclear or said.unknown
        if self.before.settled and self._same(remaining, base) and not more:
            return  # the same order again is the same quote
        if len(remaining) > 1 and self._take_each_for_its_own(remaining):
            return
        if not base:
            about = self.before.about
            if first.product is None and about and not _names_product(said, 0):
                remaining[0] = replace(first, product=about)
            self._set_items(remaining)
            offset = 0
        elif self._adds(first):
            offset = len(base)
            self._set_items([*base, *(self._completed(item, base[-1]) for item in remaining)])
        elif self._starts_anew(remaining):
            self.state = replace(self.state, open_fields=(), quoted=None)
            self._set_items(remaining)
            offset = 0
        elif len(alike := self._waiting_for(remaining)) > 1:
            for place in alike:
                self._change(place, first)
            offset = alike[0]
        else:
            target = self._target(first)
            if target is None:
                self._ask_which(first)
                return
            if target < 0:
                for place in range(len(base)):
                    self._change(place, first)
                offset = 0
            else:
                self._change(target, first)
                offset = target
            extra = [self._completed(item, self.state.items[offset]) for item in remaining[1:]]
            self._set_items([*self.state.items, *extra])
        self._take_doubts(offset, len(remaining))

    def _take_each_for_its_own(self, said: Sequence[Item]) -> bool:
        """What is said of several things that are there: by product; sizes of those that wait
        for theirs by what they are for, or in order."""
        items = self.state.items
        if self.said.unclear or self.said.unknown:
            return False
        products = [item.product for item in items]
        if all(products.count(item.product) == 1 and item.product for item in said):
            whole = all(item.sized and item.thickness_mm for item in said)
            if whole or len({item.product for item in said}) < len(said):
                return False
            for item in said:
                self._change(products.index(item.product), item)
            return True
        waiting = [at for at, item in enumerate(items) if not item.sized]
        plain = all(item.sized and not item.product and not item.thickness_mm for item in said)
        if not plain or len(waiting) != len(said):
            return False
        places = [items[at].place for at in waiting]
        named = [item.place for item in said]
        if any(named) and all(places):
            if sorted(map(str, named)) != sorted(map(str, places)) or len(set(named)) < len(named):
                return False
            waiting = [waiting[places.index(name)] for name in named]
        elif any(named):
            return False
        for at, item in zip(waiting, said, strict=True):
            self._change(at, item)
        return True

    def _take_whose(self) -> None:
        """ "solo lo mío", or what somebody else wants too."""
        if self.said.only_own is None:
            return
        theirs = {place for place, name in self.state.open_fields if name == "de_quien"}
        if self.said.only_own:
            self._keep([at for at in range(len(self.state.items)) if at not in theirs])
        else:
            for place in theirs:
                self._close(place, "de_quien")

    def _remove(self) -> None:
        """ "sacale la lana de roca": of several things, not of the only one."""
        self._keep(
            [
                at
                for at, item in enumerate(self.state.items)
                if item.product not in self.said.removed
                and not any(_is_named(item, unwanted) for unwanted in self.said.unwanted)
            ]
        )

    def _keep(self, kept: Sequence[int]) -> None:
        items = self.state.items
        if not kept or len(kept) == len(items):
            return
        places = {old: new for new, old in enumerate(kept)}
        open_fields = tuple(
            (places[place], name) for place, name in self.state.open_fields if place in places
        )
        self.state = replace(
            self.state,
            items=tuple(items[at] for at in kept),
            open_fields=open_fields,
            focus=0,
            options=(),
            options_field="",
        )

    def _set_items(self, items: Sequence[Item]) -> None:
        self.state = replace(self.state, items=tuple(items)[:MAX_ITEMS])

    def _take_doubts(self, offset: int, count: int) -> None:
        """What could not be read, or is not sold, has to be asked again."""
        places = [offset] + [len(self.state.items) - count + index for index in range(1, count)]
        for unknown in self.said.unknown:
            place = places[min(unknown.item, len(places) - 1)]
            self._open(place, unknown.field)
            if unknown.field == "producto":
                self.notes.append(self._say("unknown_product", said=unknown.said))
            else:
                self.notes.append(self._say("unknown_colour", said=unknown.said))
        for other in self.said.others:
            self._open(places[min(other, len(places) - 1)], "de_quien")
        for unclear in self.said.unclear:
            place = places[min(unclear.item, len(places) - 1)]
            if unclear.field == "cantidad" and (self.state.items[place].quantity or self._counted):
                continue
            self._open(place, unclear.field)
            if unclear.options and not self.state.options:
                self._offer(place, unclear)
            elif unclear.field == "dimensiones" and not unclear.options:
                self.notes.append(self._say("size_unclear"))

    @property
    def _counted(self) -> bool:
        """Whether it was told how many roofs or walls there are."""
        return (self.said.places or self.state.places) is not None

    def _offer(self, place: int, unclear: Unclear) -> None:
        self.state = replace(
            self.state, focus=place, options=unclear.options, options_field=unclear.field
        )

    def _adds(self, first: Item) -> bool:
        """Whether the items come on top of those before: "y también 20 m2 de lana de roca"."""
        if self.said.wants("correction") and not self.said.wants("addition"):
            return False  # "y si fuera telgopor de 50?"
        before = self.before
        target = self.state.items[min(self.state.focus, len(self.state.items) - 1)]
        other = first.product is not None and target.product not in (None, first.product)
        elsewhere = first.place and target.place and first.place != target.place
        if elsewhere and first.sized and target.sized and (self.said.added or not before.settled):
            return True  # "techo 8x5", and then "alero 8x1"
        if not self.said.added:
            return False
        alternative = (
            first.thickness_mm not in (None, target.thickness_mm)
            and not (first.product or first.sized or self.said.wants("correction"))
            and target.sized
        )
        if self.said.wants("addition") and alternative:
            return True  # "pasame también en 150"
        if self.said.wants("addition"):
            return (other or first.sized) and (target.sized or other)
        return (other and (first.sized or first.thickness_mm is not None)) or (
            first.sized and target.sized and first.product is not None
        )

    def _starts_anew(self, said: Sequence[Item]) -> bool:
        """A whole order, after one that was complete, takes its place."""
        complete = all(item.product and item.sized and item.thickness_mm for item in said)
        settled = self.before.settled or self.before.quoted is not None
        if len(said) > 1 and said[0].product and said[0].sized:
            return settled or not any(item.sized for item in self.state.items)
        return complete and settled and not self.said.wants("correction")

    def _target(self, first: Item) -> int | None:
        """Which item is meant: -1 for all of them, None when it has to be asked."""
        items, state = self.state.items, self.state
        if self.said.which is not None and self.said.which < len(items):
            return self.said.which
        if len(items) == 1:
            return 0
        if self.said.of_all and not any(first.product and item.product for item in items):
            return -1
        named = [at for at, item in enumerate(items) if _is_named(item, first)]
        if not named and first.sized and first.product is None:
            named = [at for at, item in enumerate(items) if _sizes(item) == _sizes(first)]
        if len(named) == 1:
            return named[0]
        if first.product is not None:
            same = [at for at, item in enumerate(items) if item.product == first.product]
            if len(same) == 1:
                return same[0]
        waiting = [at for at in range(len(items)) if self._missing(at)]
        if waiting and self.before.asked:
            return state.focus if state.focus in waiting else waiting[0]
        if first.product is None and replace(first, anchors=None, freight=None) == Item():
            return -1
        return None

    def _waiting_for(self, said: Sequence[Item]) -> list[int]:
        """The things of one product that all wait for the thickness that is said: "de 100"."""
        if len(said) != 1 or said[0] != Item(thickness_mm=said[0].thickness_mm):
            return []
        waiting = [at for at in range(len(self.state.items)) if "espesor" in self._missing(at)]
        products = {self.state.items[at].product for at in waiting}
        return waiting if "espesor" in self.before.asked and len(products) == 1 else []

    def _ask_which(self, held: Item) -> None:
        items = self.state.items
        options = tuple(Item(product=each.product) for each in items)
        if len(set(options)) < len(items):
            options = tuple(Item(thickness_mm=each.thickness_mm) for each in items)
        if len(set(options)) < len(items):
            options = tuple(
                Item(length_m=each.length_m, width_m=each.width_m, area_m2=each.area_m2)
                for each in items
            )
        self.state = replace(self.state, options=options, options_field="item", held=held)

    def _completed(self, item: Item, donor: Item) -> Item:
        """More of the same, where only a size was added."""
        if item.product is not None:
            return item
        if not item.sized:
            return _merged(donor, item)
        return replace(
            item,
            product=donor.product,
            thickness_mm=item.thickness_mm or donor.thickness_mm,
            colour=item.colour or donor.colour,
            anchors=donor.anchors if item.anchors is None else item.anchors,
            freight=donor.freight if item.freight is None else item.freight,
        )

    def _change(self, place: int, said: Item) -> None:
        items = list(self.state.items)
        area = items[place].area_m2 is not None and not _says_size(said)
        if area and said.quantity is not None and said.quantity > 1:
            # "son 30 de lana", of a thing that was told in square metres: of which it says 30?
            option = Item(area_m2=Decimal(said.quantity))
            self._open(place, "dimensiones")
            self._offer(place, Unclear("dimensiones", (option,)))
            said = replace(said, quantity=None)
        items[place] = _merged(items[place], said)
        self.state = replace(self.state, items=tuple(items))
        if said.product is not None:
            self._close(place, "producto")
        if said.thickness_mm is not None:
            self._close(place, "espesor")
        if _says_size(said) and items[place].sized:
            self._close(place, "dimensiones")
        if said.quantity is not None or said.area_m2 is not None:
            self._close(place, "cantidad")
        if said.colour is not None:
            self._close(place, "color")
        if said.finishes is not None:
            self._close(place, "terminaciones")

    def _open(self, place: int, name: str) -> None:
        if (place, name) not in self.state.open_fields:
            self.state = replace(self.state, open_fields=(*self.state.open_fields, (place, name)))

    def _close(self, place: int, name: str) -> None:
        left = tuple(each for each in self.state.open_fields if each != (place, name))
        self.state = replace(self.state, open_fields=left)
        if self.state.options_field == name and self.state.focus == place:
            self.state = replace(self.state, options=(), options_field="")

    def _missing(self, place: int) -> tuple[str, ...]:
        return missing_of(self.state, place)

    # - what cannot be -

    def _check(self) -> None:
        """Take out what is not made or not possible, and say what there is."""
        if self.said.wants("any"):
            for place, name in self.before.open_fields:
                if name == "color":
                    default = self.catalogue.default_colour.id
                    self._change(place, Item(colour=default))
        for place, item in enumerate(self.state.items):
            problem = self._thickness_problem(item)
            if problem is not None:
                self._refuse(place, "espesor", problem)
            problem = self._size_problem(item)
            if problem is not None:
                self._refuse(place, "dimensiones", problem)
            sides = sum(count for _, count in item.finishes or ())
            if sides > self.catalogue.max_finish_sides:
                most = self.catalogue.max_finish_sides
                self._refuse(place, "terminaciones", self._say("too_many_sides", most=most))
                if len(item.finishes or ()) == 1 and not self.state.options:
                    self._offer_sides(place, (item.finishes or ())[0][0])

    def _offer_sides(self, place: int, finish: str) -> None:
        counts = range(1, self.catalogue.max_finish_sides + 1)
        options = tuple(Item(finishes=((finish, count),)) for count in counts)
        self._offer(place, Unclear("terminaciones", options))

    def _refuse(self, place: int, name: str, problem: str) -> None:
        items = list(self.state.items)
        items[place] = _without(items[place], name)
        self.state = replace(self.state, items=tuple(items))
        self._open(place, name)
        if problem not in self.notes:
            self.notes.append(problem)

    def _thickness_problem(self, item: Item) -> str | None:
        thickness = item.thickness_mm
        product = self.catalogue.product(item.product) if item.product else None
        if thickness is None:
            return None
        said = number(self.language, thickness)
        if product is not None and thickness not in product.thicknesses_mm:
            return self._say(
                "not_made",
                product=product.name.in_language(self.language),
                said=said,
            )
        every = sorted({each for p in self.catalogue.products for each in p.thicknesses_mm})
        if product is None and thickness not in every:
            return self._say("not_made_any", said=said, thicknesses=one_of(self.language, every))
        return None

    def _size_problem(self, item: Item) -> str | None:
        most = self.catalogue.max_side_m
        sides = [side for side in (item.length_m, item.width_m) if side is not None]
        if any(not 0 < side <= most for side in sides):
            return self._say("bad_side", most=number(self.language, most))
        if item.area_m2 is not None and not 0 < item.area_m2 <= most * most:
            return self._say("bad_area", most=number(self.language, most * most))
        sizes = [*sides, *([item.area_m2] if item.area_m2 is not None else [])]
        if any(size != round(size, MAX_DECIMALS) for size in sizes):
            return self._say("too_precise", most=MAX_DECIMALS)
        return None

    # - questions -

    def _answer_questions(self) -> None:
        said = self.said
        products = [p for p in map(self.catalogue.product, said.about) if p is not None]
        if products:
            # After a comparison nothing tells which of them is meant next.
            self.state = replace(self.state, about=products[0].id if len(products) == 1 else None)
        elif said.topics and self.state.items:
            item = self.state.items[min(self.state.focus, len(self.state.items) - 1)]
            known = self.catalogue.product(item.product) if item.product else None
            products = [known] if known is not None else []
        elif said.topics and self.before.about:
            known = self.catalogue.product(self.before.about)
            products = [known] if known is not None else []
        # "which is better for noise?" is answered by what is known of noise
        # and "aislar del ruido" asks for noise
        if "compare" in said.topics and len(products) == 1 and (mine := self._item_in_focus()):
            own = self.catalogue.product(mine.product) if mine.product else None
            products = [own, *products] if own and own not in products else products
        general = {"compare"} if len(said.topics) > 1 else set()
        if set(said.topics) == {"thicknesses", "compare"} and products:
            general = {"thicknesses"}  # which of them is better
        if said.wants("cheapest"):
            general.add("compare")
        if {"sound", "fire", "water"} & set(said.topics):
            general.add("insulation")
        topics = [each for each in said.topics if each not in general]
        for topic in topics:
            self.answers += self._answer(topic, products)
        if said.wants("delivery") and all(item.freight is None for item in said.items):
            included = self.catalogue.freight.included_by_default
            self.answers.append(
                self._say("freight_included" if included else "freight_not_included")
            )
            self.answers.append(self._say("delivery_time"))
        for option in said.both_ways:
            included = getattr(self.catalogue, option).included_by_default
            self.answers.append(self._say(f"{option}_{'included' if included else 'not_included'}"))
        if said.wants("payment"):
            self.answers.append(self._say("payment"))
        if said.wants("cheapest") and self.state.quoted is None:
            self.answers.append(self._cheapest(products or list(self.catalogue.products)))
        elif said.wants("price_objection"):
            quoted = self.state.quoted is not None
            self.answers.append(self._say("objection_quoted" if quoted else "objection"))
        self.answers = list(dict.fromkeys(self.answers))

    def _cheapest(self, products: Sequence[Product]) -> str:
        """By the catalogue's own factors; what it costs is for the quote to say."""
        catalogue = self.catalogue
        costs = {
            product.base_price_per_m2 * catalogue.thickness_factor(thickness): (product, thickness)
            for product in products
            for thickness in product.thicknesses_mm
        }
        product, thickness = costs[min(costs)]
        name = product.name.in_language(self.language)
        return self._say("cheapest", product=name, thickness=thickness)

    def _answer(self, topic: str, products: list[Product]) -> list[str]:
        language = self.language
        if topic == "products":
            return [self._say("products", products=all_of(language, self._product_names()))]
        if topic == "colours":
            return [self._say("colours", colours=all_of(language, self._colour_names()))]
        if topic == "finishes":
            names = [each.name.in_language(language) for each in self.catalogue.finishes]
            return [self._say("finishes", finishes=one_of(language, names))]
        if topic == "price_factors":
            return self._prices_per_m2(products) or [self._say("price_factors")]
        if topic in ("place", "hours", "warranty", "work", "other"):
            return [self._say("ask_a_person")]
        if topic == "tax":
            return [self._say("tax_included")]
        if topic == "bot":
            return [self._say("automatic")]
        about = products or list(self.catalogue.products)
        if topic == "other_data":
            named = all_of(language, [each.name.in_language(language) for each in products])
            told = (
                self._say("fact_unknown", product=named) if products else self._say("data_unknown")
            )
            return [told, self._say("ask_a_person")]
        if topic == "thicknesses":
            return [self._thicknesses(product) for product in about]
        if topic == "compare":
            return self._comparison(about)
        if topic == "description":
            return [
                self._fact(product, product.description.in_language(language)) for product in about
            ]
        answers = []
        for product in about:
            fact = product.fact(topic)
            if fact is not None:
                answers.append(self._fact(product, fact.in_language(language)))
            elif products:
                name = product.name.in_language(language)
                answers.append(self._say("fact_unknown", product=name))
        return answers

    def _prices_per_m2(self, products: list[Product]) -> list[str]:
        """Of each product that is asked about, by thickness, or of the one that is wanted."""
        item = self._item_in_focus()
        told = []
        for product in products:
            own = item is not None and item.product == product.id
            colour = self.catalogue.colour(item.colour or "") if own and item else None
            colour = colour or self.catalogue.default_colour
            thicknesses = self._thicknesses_asked(product)
            prices = [
                self._say(
                    "price_of_thickness",
                    thickness=thickness,
                    price=money(
                        self.language,
                        self.catalogue.price_per_m2(
                            product,
                            thickness,
                            colour=colour,
                            anchors=item.anchors if own and item else None,
                            freight=item.freight if own and item else None,
                        ),
                        self.catalogue.currency,
                    ),
                )
                for thickness in thicknesses
            ]
            told.append(
                self._say(
                    "prices_per_m2",
                    product=product.name.in_language(self.language),
                    colour=colour.name.in_language(self.language),
                    prices="; ".join(prices),
                )
            )
        return told

    def _thicknesses_asked(self, product: Product) -> tuple[int, ...]:
        wanted = {each.thickness_mm for each in self.state.items if each.product == product.id}
        asked = wanted | {*self.said.about_thicknesses_mm}
        made = tuple(each for each in product.thicknesses_mm if each in asked)
        return made or product.thicknesses_mm

    def _item_in_focus(self) -> Item | None:
        items = self.state.items
        return items[min(self.state.focus, len(items) - 1)] if items else None

    def _comparison(self, products: list[Product]) -> list[str]:
        language = self.language
        told = []
        asked_of = set(self.said.about_thicknesses_mm)
        if len(asked_of) == 1 and self.state.items:
            own = self.state.items[min(self.state.focus, len(self.state.items) - 1)].thickness_mm
            asked_of |= set() if own is None else {own}
        thicknesses = sorted(asked_of)
        if len(thicknesses) > 1:
            thin, thick = thicknesses[0], thicknesses[-1]
            # What lets the heat through is inverse to the thickness, of whatever product.
            ratio = round(thick / thin, 1)
            told.append(
                self._say(
                    "compare_thicknesses",
                    thin=number(language, thin),
                    thick=number(language, thick),
                    ratio=number(language, ratio.normalize()),
                )
            )
        elif thicknesses:
            told.append(self._say("thicker"))
        for product in products:
            facts = [product.fact("insulation")]
            if len(products) > 1:
                facts = [product.description, *facts, product.fact("fire"), product.fact("sound")]
            known = [fact.in_language(language) for fact in facts if fact is not None]
            if known and (len(products) <= 3 or len(products) < len(self.catalogue.products)):
                told.append(self._fact(product, " ".join(known)))
        return told

    def _fact(self, product: Product, fact: str) -> str:
        return self._say("product_fact", product=product.name.in_language(self.language), fact=fact)

    def _thicknesses(self, product: Product) -> str:
        return self._say(
            "product_thicknesses",
            product=product.name.in_language(self.language),
            thicknesses=all_of(self.language, product.thicknesses_mm),
        )

    def _product_names(self) -> list[str]:
        return [each.name.in_language(self.language) for each in self.catalogue.products]

    def _colour_names(self) -> list[str]:
        return [each.name.in_language(self.language) for each in self.catalogue.colours]

    # - how the turn ends -

    def _go_on(self, tipo: Tipo) -> Turn:
        """Ask for what is missing, or have it priced."""
        state = self.state
        asking = _Asking(state, self.catalogue)
        parts = [*self.answers, *self.notes]
        if asking.nothing_missing and not state.settled:
            return Turn(
                state=replace(
                    state,
                    preface=tuple(parts),
                    asked=(),
                    options=(),
                    options_field="",
                    held=None,
                ),
                text="",
                action="request_quote",
                tipo="cotizacion",
                confidence=self.said.confidence,
                items=tuple(quote_item(item) for item in state.items),
                quote_id=self._superseded(),
            )
        return asking.turn(parts, tipo, self.said.confidence)

    def _superseded(self) -> str | None:
        """The quote that the coming one corrects."""
        quoted = self.state.quoted
        if quoted is None or self.state.quoted_before:
            return None
        return quoted.id or None

    def _without_change(self) -> Turn:
        """A message that changed nothing of what is to be quoted."""
        said, state = self.said, self.state
        collecting = bool(state.items) and not state.settled
        if said.sure_of("rejection"):
            return self._rejected(collecting)
        if state.quoted is not None and not collecting:
            after = self._after_quote()
            if after is not None:
                return after
        if said.wants("goodbye"):
            return self._end(self._say("goodbye"), "general")
        if said.wants("later") and collecting and not said.topics:
            self.state = replace(self.state, lost=0)
            self._help_to_choose()
            parts = [*self.answers, *self.notes]
            asking = _Asking(self.state, self.catalogue)
            return asking.turn(parts, "cotizacion", said.confidence, pressing=False)
        if said.wants("quote_status", "pdf") and state.quoted is None:
            self.answers.append(self._say("no_quote_yet"))
        if said.wants("thanks") and not collecting:
            return self._end(self._say("welcome"), "general")
        if said.wants("buying") and (state.quoted is None or collecting):
            self.answers.append(self._say("how_to_buy"))
        about_buying = ("delivery", "payment", "price_objection", "quote_status", "buying")
        if said.topics or said.wants(*about_buying) or (said.wants("pdf") and collecting):
            self.state = replace(self.state, lost=0)
            tipo: Tipo = "informacion" if said.topics else "pregunta"
            return self._go_on(tipo) if collecting else self._offer_a_quote(tipo)
        if said.wants("quote_request", "correction", "pdf") and not state.items:
            self.state = replace(self.state, items=(Item(),), settled=False, lost=0)
            return self._go_on("cotizacion")
        if said.wants("greeting", "help", "name", "thanks", "affirm", "restart"):
            self.state = replace(self.state, lost=0)
            return self._go_on("cotizacion") if collecting else self._welcome()
        if not said.intents:
            return self._go_on("general") if collecting else self._welcome()
        if said.items or said.choice is not None:
            self.state = replace(self.state, lost=0)
            self.answers.append(self._say("noted"))
            return self._go_on("cotizacion")
        return self._lost(collecting)

    def _after_quote(self) -> Turn | None:
        said, state = self.said, self.state
        quoted = state.quoted
        assert quoted is not None
        asks = bool(said.topics) or said.wants("payment", "delivery", "quote_status")
        confirmed = "confirmar" in self.before.asked and said.wants("affirm") and not asks
        if said.sure_of("acceptance") or confirmed:
            return self._accepted(quoted)
        if said.wants("buying") and quoted.standing == "sent":
            turn = self._end(self._say("confirm_quote", code=quoted.code), "seguimiento")
            return replace(turn, state=replace(turn.state, asked=("confirmar",)))
        if said.wants("price_objection"):
            turn = self._end_with_buttons(
                ["button_no_freight", "button_no_anchors", "button_person"]
            )
            return replace(turn, tipo="pregunta")
        if said.wants("pdf") and quoted.id:
            link = _PDF.format(id=quoted.id)
            return self._end(self._say("pdf_here", code=quoted.code, link=link), "seguimiento")
        if said.wants("correction") and not said.items:
            return self._end(self._say("change_what"), "cotizacion")
        asks_again = said.wants("quote_status", "quote_request") or bool(said.items)
        if asks_again and not said.topics and not said.wants("acceptance"):
            total = money(self.language, Decimal(quoted.total), quoted.currency)
            text = self._say(
                "quote_again", code=quoted.code, description=quoted.description, total=total
            )
            return self._end(f"{text} {self._standing(quoted)}".strip(), "seguimiento")
        if said.wants("thanks", "goodbye"):
            text = "goodbye" if said.wants("goodbye") else "welcome"
            return self._end(self._say(text), "general")
        if said.wants("affirm", "acceptance") and quoted.standing == "sent":
            turn = self._end(self._say("confirm_quote", code=quoted.code), "seguimiento")
            return replace(turn, state=replace(turn.state, asked=("confirmar",)))
        if said.wants("affirm"):
            return self._end(self._say("welcome"), "general")
        if said.wants("name") or ("nombre" in self.before.asked and said.wants("deny")):
            return self._end(self._say("after_quote"), "general")
        return None

    def _standing(self, quoted: Quoted) -> str:
        if quoted.standing in ("accepted", "rejected", "expired"):
            return self._say(f"standing_{quoted.standing}")
        if not quoted.valid_until:
            return ""
        until = datetime.fromisoformat(quoted.valid_until)
        return self._say("quote_valid", date=date(self.language, until))

    def _accepted(self, quoted: Quoted) -> Turn:
        """The customer takes the quote, if it still stands; otherwise a new one is made."""
        if quoted.standing == "accepted":
            return self._end(self._say("accepted_already", code=quoted.code), "seguimiento")
        items = self.state.items or self.state.quoted_items
        if quoted.standing in ("rejected", "expired") and items:
            self.state = replace(self.state, items=items, quoted_before=False)
            self.answers.append(self._say(f"renewed_{quoted.standing}", code=quoted.code))
            self.state = replace(self.state, settled=False)
            return self._go_on("cotizacion")
        turn = self._end(
            self._say("accepted", code=quoted.code),
            "seguimiento",
            quoted=replace(quoted, standing="accepted"),
        )
        return replace(turn, action="accept_quote", quote_id=quoted.id)

    def _rejected(self, collecting: bool) -> Turn:
        """The customer does not want it: what was being asked for, or the quote."""
        quoted = self.state.quoted
        if quoted is None or collecting:
            kept = self.state.quoted_items if quoted is not None else ()
            self.state = replace(
                self.state, items=kept, open_fields=(), held=None, settled=bool(kept)
            )
            return self._end(self._say("rejected"), "seguimiento")
        if quoted.standing != "sent":
            return self._end(self._say("rejected"), "seguimiento")
        turn = self._end(
            self._say("rejected"), "seguimiento", quoted=replace(quoted, standing="rejected")
        )
        return replace(turn, action="reject_quote", quote_id=quoted.id)

    def _end_with_buttons(self, buttons: Sequence[str]) -> Turn:
        turn = self._end("", "general")
        return replace(
            turn, text=turn.text.strip(), actions=tuple(self._say(each) for each in buttons)
        )

    def _help_to_choose(self) -> None:
        """For a customer who does not know what to take: what the catalogue says of the uses
        or the thicknesses, once."""
        if dict(self.state.asked_times).get("help", 0):
            return
        counted = (*self.state.asked_times, ("help", 1))
        self.state = replace(self.state, asked_times=counted[-_ASKED_KEPT:])
        missing = self._missing(min(self.state.focus, len(self.state.items) - 1))
        item = self.state.items[min(self.state.focus, len(self.state.items) - 1)]
        known = self.catalogue.product(item.product) if item.product else None
        if "producto" in missing:
            for product in self.catalogue.products:
                self.answers += self._answer("uses", [product])
        elif "espesor" in missing and known is not None and known.fact("insulation") is not None:
            self.answers += self._answer("insulation", [known])

    def _offer_a_quote(self, tipo: Tipo) -> Turn:
        if not self.answers and not self.notes:
            return self._welcome()
        if self.state.quoted is not None and self.state.settled:
            turn = self._end_with_buttons(["button_accept", "button_change", "button_person"])
        else:
            turn = self._end_with_buttons(["button_quote", "button_products"])
        return replace(turn, tipo=tipo)

    def _what_we_do(self) -> str:
        product = self.catalogue.products[0]
        middle = product.thicknesses_mm[len(product.thicknesses_mm) // 2]
        name = product.name.in_language(self.language)
        return self._say(
            "what_we_do",
            products=all_of(self.language, self._product_names()),
            example=self._say("example", product=name, thickness=middle),
        )

    def _welcome(self) -> Turn:
        self.state = replace(self.state, greeted=True)
        turn = self._end(self._what_we_do(), "general")
        return replace(turn, actions=(self._say("button_quote"), self._say("button_products")))

    def _lost(self, collecting: bool) -> Turn:
        """Nothing to go by: off-topic, or not understood."""
        lost = self.state.lost + 1
        self.state = replace(self.state, lost=lost)
        if lost > _LOST_TURNS + 1:
            return self._hand_over()
        if lost > _LOST_TURNS:
            text = self._say("lost")
            self.state = replace(self.state, person_offered=True)
            if collecting:
                self.answers.append(text)
                return self._go_on("general")
            turn = self._end(text, "general")
            turn = replace(turn, actions=(self._say("button_quote"), self._say("button_person")))
            return replace(turn, state=replace(turn.state, lost=lost))
        if collecting or self.state.options:
            self.answers.append(self._say("not_understood"))
            return self._go_on("general")
        variant = 2 - lost % 2
        products = all_of(self.language, self._product_names())
        turn = self._end(self._say(f"off_topic_{variant}", products=products), "general")
        turn = replace(turn, actions=(self._say("button_quote"), self._say("button_products")))
        return replace(turn, state=replace(turn.state, lost=lost))


# --- Asking -------------------------------------------------------------------------------


def missing_of(state: State, place: int) -> tuple[str, ...]:
    """The fields of an item that a price needs and that are not settled, in the order in
    which they are asked for."""
    item = state.items[place]
    needed = {
        "producto": item.product is None,
        "espesor": item.thickness_mm is None,
        "dimensiones": not item.sized,
    }
    return tuple(
        name for name in _BLOCKING if needed.get(name, False) or (place, name) in state.open_fields
    )


@dataclass
class _Asking:
    """Everything that is missing, as one question."""

    state: State
    catalogue: Catalogue
    missing: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for place in range(len(self.state.items)):
            names = missing_of(self.state, place)
            if names:
                self.missing.append((place, names))

    @property
    def nothing_missing(self) -> bool:
        return bool(self.state.items) and not self.missing and not self.state.options

    @property
    def language(self) -> Language:
        return self.state.language

    def turn(
        self, parts: Sequence[str], tipo: Tipo, confidence: float, *, pressing: bool = True
    ) -> Turn:
        """The parts of a reply, followed by the question; `pressing` is False for a customer
        who does not know yet: then it is only said what will be needed."""
        state = self.state
        needs = tuple(dict.fromkeys(name for _, names in self.missing for name in names))
        if not self.missing and not state.options:
            text = " ".join(parts) or say(self.language, "noted")
            return Turn(state, text, tipo=tipo, confidence=confidence)
        key = self._key() if pressing else f"no hurry {self._key()}"[:200]
        times = dict(state.asked_times).get(key, 0)
        counted = Counter(dict(state.asked_times))
        counted[key] = times + 1
        if not pressing and self.missing:
            variant = min(times, 1) + 1
            question = say(self.language, f"no_hurry_{variant}", fields=self._fields(self.missing))
            actions = self._suggestions()
        elif state.options:
            question, actions = self._choice_question(times)
            others = [(p, self._beside_choice(p, names)) for p, names in self.missing]
            others = [(place, names) for place, names in others if names]
            if others:
                question += " " + say(self.language, "ask_also", fields=self._fields(others))
        else:
            question, actions = self._question(times), self._suggestions()
        focus = state.focus
        if not state.options and self.missing and focus not in dict(self.missing):
            focus = self.missing[0][0]
        asked = dict(self.missing).get(focus, ())
        return Turn(
            state=replace(
                state,
                focus=focus,
                asked=tuple(asked),
                asked_times=tuple(counted.items())[-_ASKED_KEPT:],
            ),
            text=" ".join([*parts, question]),
            tipo=tipo,
            confidence=confidence,
            needs=needs
            or (("producto",) if state.options_field == "item" else (state.options_field,)),
            actions=actions,
        )

    def _key(self) -> str:
        if self.state.options:
            return f"choice {self.state.options_field} {self.state.options}"[:200]
        return ";".join(f"{place}:{','.join(names)}" for place, names in self.missing)[:200]

    def _beside_choice(self, place: int, names: Sequence[str]) -> tuple[str, ...]:
        """What is missing of an item besides what the options are about."""
        state = self.state
        if place != state.focus or state.options_field == "item":
            return tuple(names)
        return tuple(name for name in names if name != state.options_field)

    def _fields(self, missing: Sequence[tuple[int, Sequence[str]]]) -> str:
        """ "el espesor y las medidas"; with several items, of which one."""
        if len(self.state.items) == 1:
            return all_of(
                self.language,
                [self._field(place, name) for place, names in missing for name in names],
            )
        whose = [self._field(place, "de_quien") for place, names in missing if "de_quien" in names]
        rest = [(place, [name for name in names if name != "de_quien"]) for place, names in missing]
        return all_of(
            self.language,
            whose
            + [
                say(
                    self.language,
                    "for_item",
                    fields=all_of(self.language, [self._field(place, name) for name in names]),
                    item=self._item_name(place),
                )
                for place, names in rest
                if names
            ],
        )

    def _question(self, times: int) -> str:
        wanted = self._fields(self.missing)
        if times >= 2 * _ASK_TEXTS:
            return say(self.language, "ask_rest", fields=wanted)
        return say(self.language, f"ask_{times % _ASK_TEXTS + 1}", fields=wanted)

    def _field(self, place: int, name: str) -> str:
        item = self.state.items[place]
        if name == "producto":
            names = [each.name.in_language(self.language) for each in self.catalogue.products]
            return say(self.language, "field_producto", products=one_of(self.language, names))
        if name == "espesor":
            product = self.catalogue.product(item.product) if item.product else None
            if product is None:
                return say(self.language, "field_espesor")
            thicknesses = one_of(self.language, product.thicknesses_mm)
            return say(self.language, "field_espesor_of", thicknesses=thicknesses)
        if name == "dimensiones" and (item.length_m is None) != (item.width_m is None):
            return say(self.language, "field_largo" if item.length_m is None else "field_ancho")
        if name == "de_quien":
            return say(self.language, "field_de_quien", item=self._item_name(place))
        if name == "cantidad":
            return say(self.language, "field_cantidad", size=_sized_text(self.language, item))
        if name == "color":
            colours = [each.name.in_language(self.language) for each in self.catalogue.colours]
            return say(self.language, "field_color", colours=one_of(self.language, colours))
        if name == "terminaciones":
            most = self.catalogue.max_finish_sides
            return say(self.language, "field_terminaciones", most=most)
        return say(self.language, "field_dimensiones")

    def _item_name(self, place: int) -> str:
        """What the customer calls it by; with its size where others are called the same."""
        name = self._short_name(place)
        others = [at for at in range(len(self.state.items)) if at != place]
        if any(self._short_name(at) == name for at in others):
            sized = _sized_text(self.language, self.state.items[place])
            return f"{name} ({sized})" if sized and sized != name else name
        return name

    def _short_name(self, place: int) -> str:
        item = self.state.items[place]
        product = self.catalogue.product(item.product) if item.product else None
        if product is None:
            sized = _sized_text(self.language, item)
            return sized or say(self.language, "item_unnamed")
        name = product.name.in_language(self.language)
        if item.thickness_mm is None:
            return name
        thickness = number(self.language, item.thickness_mm)
        return say(self.language, "item_named", product=name, thickness=thickness)

    def _choice_question(self, times: int) -> tuple[str, tuple[str, ...]]:
        state = self.state
        if state.options_field == "item":
            shown = [self._item_name(place) for place in range(len(state.items))]
            if len(set(shown)) < len(shown):
                shown = [self._option(option) for option in state.options]
        else:
            shown = [self._option(option) for option in state.options]
        finish = self._finish_of_options()
        if finish:
            sides = [option.finishes[0][1] for option in state.options if option.finishes]
            shown = [self._sides(count) for count in sides]
        options = one_of(self.language, shown)
        if times >= 2 * _CONFIRM_TEXTS:
            return say(self.language, "ask_rest", fields=options), tuple(shown)
        text = "which_item" if state.options_field == "item" else "confirm"
        variant = times % _CONFIRM_TEXTS + 1
        if finish:
            question = say(
                self.language, f"how_many_sides_{variant}", finish=finish, options=options
            )
        else:
            question = say(self.language, f"{text}_{variant}", options=options)
        return question, tuple(shown)

    def _finish_of_options(self) -> str:
        """The finish whose sides are asked for; "" when the options are of something else."""
        ids = {option.finishes[0][0] for option in self.state.options if option.finishes}
        finish = self.catalogue.finish(ids.pop()) if len(ids) == 1 else None
        return "" if finish is None else finish.name.in_language(self.language)

    def _sides(self, count: int) -> str:
        return say(
            self.language, "option_sides_one" if count == 1 else "option_sides_many", count=count
        )

    def _option(self, option: Item) -> str:
        parts = []
        if option.product is not None:
            product = self.catalogue.product(option.product)
            if product is not None:
                parts.append(product.name.in_language(self.language))
        if option.thickness_mm is not None:
            thickness = number(self.language, option.thickness_mm)
            parts.append(say(self.language, "option_thickness", thickness=thickness))
        sized = _sized_text(self.language, option)
        if sized:
            parts.append(sized)
        if option.colour is not None:
            colour = self.catalogue.colour(option.colour)
            if colour is not None:
                parts.append(colour.name.in_language(self.language))
        return ", ".join(parts)

    def _suggestions(self) -> tuple[str, ...]:
        """Answers to the first thing that is missing, where they can be listed."""
        place, names = self.missing[0]
        item = self.state.items[place]
        if names[0] == "producto":
            return tuple(each.name.in_language(self.language) for each in self.catalogue.products)
        product = self.catalogue.product(item.product) if item.product else None
        if names[0] == "espesor" and product is not None:
            return tuple(
                say(self.language, "option_thickness", thickness=each)
                for each in product.thicknesses_mm
            )
        if names[0] == "de_quien":
            return say(self.language, "button_own"), say(self.language, "button_all")
        if names[0] == "color":
            return tuple(each.name.in_language(self.language) for each in self.catalogue.colours)
        return ()


def _sized_text(language: Language, item: Item) -> str:
    if item.area_m2 is not None:
        return say(language, "option_area", area=number(language, item.area_m2))
    if item.length_m is not None and item.width_m is None:
        return say(language, "option_length", length=number(language, item.length_m))
    if item.length_m is None or item.width_m is None:
        return ""
    sides = {
        "length": number(language, item.length_m),
        "width": number(language, item.width_m),
    }
    if item.quantity is not None and item.quantity > 1:
        return say(language, "option_pieces", count=item.quantity, **sides)
    return say(language, "option_sides", **sides)


# --- Items --------------------------------------------------------------------------------


def quote_item(item: Item) -> dict[str, Any]:
    """A complete item in the shape in which quotes are requested: decimals as strings,
    finishes as [id, number of sides], what was not said left out."""
    document = item.to_document()
    finishes = [list(each) for each in item.finishes or () if each[1] > 0]
    document.pop("finishes", None)
    document.pop("place", None)
    if finishes:
        document["finishes"] = finishes
    return document


def _merged(old: Item, said: Item) -> Item:
    """What is known of an item after more was said of it; the newer word counts."""
    new = replace(
        old,
        product=said.product or old.product,
        thickness_mm=old.thickness_mm if said.thickness_mm is None else said.thickness_mm,
        colour=said.colour or old.colour,
        anchors=old.anchors if said.anchors is None else said.anchors,
        freight=old.freight if said.freight is None else said.freight,
        place=old.place or said.place,
    )
    if said.finishes is not None:
        finishes = {**dict(old.finishes or ()), **dict(said.finishes)}
        new = replace(new, finishes=tuple((i, n) for i, n in finishes.items() if n > 0) or None)
    if said.area_m2 is not None:
        return replace(
            new, area_m2=said.area_m2, length_m=None, width_m=None, quantity=said.quantity
        )
    if said.length_m is not None or said.width_m is not None:
        new = replace(
            new,
            area_m2=None,
            length_m=old.length_m if said.length_m is None else said.length_m,
            width_m=old.width_m if said.width_m is None else said.width_m,
        )
    if said.quantity is not None and new.area_m2 is None:
        new = replace(new, quantity=said.quantity)
    return new


def _without(item: Item, name: str) -> Item:
    if name == "producto":
        return replace(item, product=None)
    if name == "espesor":
        return replace(item, thickness_mm=None)
    if name == "color":
        return replace(item, colour=None)
    if name == "terminaciones":
        return replace(item, finishes=None)
    return replace(item, length_m=None, width_m=None, area_m2=None, quantity=None)


def _size_of(item: Item) -> Item:
    return Item(length_m=item.length_m, width_m=item.width_m)


def _says_size(item: Item) -> bool:
    return item.area_m2 is not None or item.length_m is not None or item.width_m is not None


def _is_named(item: Item, said: Item) -> bool:
    """Whether what was said tells this item: "el de 3x2", "el isodec de 100"."""
    telling = ("product", "thickness_mm", "length_m", "width_m", "area_m2")
    if said.place and said.place == item.place:
        return True
    given = [name for name in telling if getattr(said, name) is not None]
    return bool(given) and all(getattr(item, name) == getattr(said, name) for name in given)


def _sizes(item: Item) -> tuple[Any, ...]:
    return item.length_m, item.width_m, item.area_m2


def _names_product(said: Understanding, place: int) -> bool:
    """Whether the message named a product for this item, though not one that is known."""
    doubts: Iterable[Any] = (*said.unknown, *said.unclear)
    return any(each.field == "producto" and each.item == place for each in doubts)


def _agrees_with(item: Item, before: State, said: Understanding) -> bool:
    """Whether the item is nothing but the option that was chosen."""
    if said.choice is None or said.choice >= len(before.options):
        return False
    option = before.options[said.choice]
    return all(
        getattr(item, each.name) in (None, getattr(option, each.name)) for each in fields(Item)
    )


# --- Refusals -----------------------------------------------------------------------------

_FIELD_OF: Final[Mapping[str, str]] = {
    "product": "producto",
    "thickness_mm": "espesor",
    "colour": "color",
    "finishes": "terminaciones",
}


def _refused_field(name: str) -> tuple[int, str]:
    """ "items.1.thickness_mm" is field thickness_mm of item 1."""
    parts = name.split(".")
    if len(parts) >= 3 and parts[0] == "items" and parts[1].isdigit():
        return int(parts[1]), parts[2]
    return 0, parts[-1]


def _refusal(
    language: Language,
    item: Item,
    name: str,
    code: str,
    allowed: Sequence[Any],
    catalogue: Catalogue,
) -> str:
    if name == "thickness_mm" and code == "not_made" and allowed:
        product = catalogue.product(item.product) if item.product else None
        shown = "?" if product is None else product.name.in_language(language)
        said = number(language, item.thickness_mm or 0)
        return say(language, "not_made", product=shown, said=said)
    if name == "product" and code == "unknown":
        names = [each.name.in_language(language) for each in catalogue.products]
        return say(language, "products", products=all_of(language, names))
    if name == "colour" and code == "unknown":
        names = [each.name.in_language(language) for each in catalogue.colours]
        return say(language, "colours", colours=all_of(language, names))
    if name in ("length_m", "width_m") and code == "out_of_range":
        return say(language, "bad_side", most=number(language, catalogue.max_side_m))
    if name == "area_m2" and code == "out_of_range":
        return say(language, "bad_area", most=number(language, catalogue.max_side_m**2))
    if code == "too_precise" and allowed:
        return say(language, "too_precise", most=str(allowed[0]))
    if code == "too_small":
        return say(language, "too_small")
    if name == "finishes" and code == "too_many":
        return say(language, "too_many_sides", most=catalogue.max_finish_sides)
    if name == "quantity" and allowed:
        return say(language, "too_many_pieces", most=str(allowed[0]))
    return say(language, "refused_other")
