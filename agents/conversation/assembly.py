"""Which product the measures belong to: from what was understood, at its place, to items.

Keeps secret how people share out what they say among several things: what is said once for
all of them, what begins a new one, what corrects the word before, and what is left open by
an "o". What contradicts itself becomes an `Unclear`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, Final, NamedTuple

from agents.conversation import lexicon as lx
from agents.conversation.meaning import Field, Item, Unclear, Unknown
from agents.conversation.passage import Passage

MAX_ITEMS: Final = 20  # of one message; a customer with more sends a list, not a message
CORE: Final = ("product", "thickness", "size")
_WORDS_BETWEEN: Final = 60
_SIZE: Final = ("length_m", "width_m", "area_m2", "quantity")
_ANOTHER: Final = frozenset(
    {",", "y", "+", "mas", "otro", "otra", "de", "una", "un", "plus", "and", "another", "(", ")"}
)
_BEFORE_A_PLACE: Final = (lx.FILLER_KEYS | {":", "#"}) - {"y", "e", "o", "u", "and", "or"}


@dataclass
class Event:
    """Something understood, at its place; `values` are fields of an Item."""

    at: int
    end: int
    # product, thickness, size, colour, finish, anchors, freight, both, less, unclear, unknown,
    # and what is as before: same (all of it), same_size, copy (of a thing that is known)
    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    unclear: Unclear | None = None
    unknown: Unknown | None = None


class Assembled(NamedTuple):
    """What a message says of things; see `Understanding` for the fields."""

    items: tuple[Item, ...]
    unclear: tuple[Unclear, ...]
    unknown: tuple[Unknown, ...]
    both_ways: tuple[str, ...]
    sized_at: tuple[int, ...]  # where in the message the size of each item stands, or -1


def assemble(
    passage: Passage,
    events: Sequence[Event],
    under_way: str | None = None,
    copied: Item | None = None,
) -> "Assembled":
    """The items of a message, with what is unclear or unknown of them. `under_way` is the
    product that the conversation is about: what comes before another's name is of that.
    `copied` is what the message wants another of."""
    return _Assembly(passage, events, under_way, copied).assembled()


class _Assembly:
    """Puts what was said together: which product the measures belong to."""

    def __init__(
        self,
        passage: Passage,
        events: Sequence[Event],
        under_way: str | None,
        copied: Item | None,
    ) -> None:
        self.copied = copied
        self.passage = passage
        self.events = events
        self.under_way = under_way
        self.groups: list[dict[str, Any]] = []
        self._corrections = [start for start, _, cue in passage.cues if cue == "correction"][:200]
        self.both_ways: set[str] = set()
        self.unclear: list[Unclear] = []
        self.unknown: list[Unknown] = []

    def assembled(self) -> Assembled:
        events = sorted(self.events, key=lambda event: (event.at, event.end))
        self.of_both = any(event.kind == "both" for event in events)
        events = [event for event in events if event.kind != "both"]
        events = [e for e in events if e.kind not in CORE or not self.passage.instead(e.at)]
        events = _sizes_after_products(events)
        self.sized_again = _products_with_a_size(events)
        for index, event in enumerate(events):
            self._add(event, events[index + 1] if index + 1 < len(events) else None)
            if len(self.groups) > MAX_ITEMS or len(self.unclear) > MAX_ITEMS:
                break
        self._share()
        items: list[Item] = []
        sized_at: list[int] = []
        places: dict[int, int] = {}
        touched = {each.item for each in self.unclear} | {each.item for each in self.unknown}
        for index, group in enumerate(self.groups[:MAX_ITEMS]):
            item = to_item(group)
            if item != Item() or index in touched:
                places[index] = len(items)
                items.append(item)
                sized_at.append(group["_at"].get("size", -1))
        unclear = tuple(
            replace(each, item=places[each.item]) for each in self.unclear if each.item in places
        )
        unknown = tuple(
            replace(each, item=places[each.item]) for each in self.unknown if each.item in places
        )
        both_ways = tuple(sorted(self.both_ways))
        return Assembled(tuple(items), unclear, unknown, both_ways, tuple(sized_at))

    def _add(self, event: Event, following: Event | None) -> None:
        if not self.groups:
            self._new_group()
        group = self.groups[-1]
        if event.unclear is not None:
            slot = {"producto": "product", "espesor": "thickness", "dimensiones": "size"}.get(
                event.unclear.field, ""
            )
            again = slot in group["_end"] and slot in ("size", "product")
            if event.kind == "less":
                _forget_size(group)
            elif again and not self._corrects(group["_end"][slot], event):
                group = self._new_group()
            self.unclear.append(replace(event.unclear, item=len(self.groups) - 1))
            group["_end"].setdefault(slot or event.unclear.field, event.end)
            if slot == "product":
                group["product"] = ""  # one of its own, though not known which
            return
        if event.kind in ("same", "same_size", "copy"):
            self._same(event)
            return
        if event.kind in CORE:
            target = self._group_for(event, following, group)
            if target is None:
                return
            group = target
        if not group.get("place"):
            group["place"] = self._place_near(event)
        if event.kind == "finish":
            finishes = group.setdefault("finishes", {})
            finishes[event.values["finish"]] = event.values["sides"]
        elif event.kind == "colour":
            if not self._colour(event, group):
                return
        elif event.kind in ("anchors", "freight") and self._both_ways(event, group):
            return
        else:
            group.update(event.values)
        if event.unknown is not None:
            self.unknown.append(replace(event.unknown, item=len(self.groups) - 1))
        group["_end"][event.kind] = event.end
        group["_at"].setdefault(event.kind, event.at)

    def _same(self, event: Event) -> None:
        """What is said to be as before; what is said after it takes its place."""
        group = self.groups[-1]
        if event.kind == "copy" and self.copied is not None:
            values = {each.name: getattr(self.copied, each.name) for each in fields(Item)}
            known = {name: value for name, value in values.items() if value is not None}
            if "finishes" in known:
                known["finishes"] = dict(known["finishes"])
            group.update({**known, **group, "_copied": set(known) - set(group)})
        elif event.kind == "same_size" and len(self.groups) > 1 and not _has_size(group):
            before = self.groups[-2]
            group.update({name: before[name] for name in _SIZE if name in before})
        elif event.kind == "same" and _has_size(group):
            copied = {name: value for name, value in group.items() if name[0] != "_"}
            self._new_group().update({**copied, "_copied": set(copied)})

    def _place_near(self, event: Event) -> str:
        """ "techo" of "techo: 10x5" and of "isodec para el techo"; "" for none."""
        passage = self.passage
        for steps, passing in (
            (range(event.at - 1, event.at - 6, -1), _BEFORE_A_PLACE),
            (range(event.end, event.end + 4), lx.ARTICLE_KEYS | lx.OF_KEYS | {"mm", "cm", "#"}),
        ):
            for at in steps:
                key = passage.key(at)
                if key in lx.PLACE_KEYS:
                    return key.removesuffix("s").removesuffix("e")
                named = passage.is_unknown_word(at)  # "techo principal: 8x5"
                if key not in passing and key not in lx.UNITS_BY_KEY and not named:
                    break
        return ""

    def _between(self, start: int, end: int) -> Sequence[str]:
        """The words between two places; of very many the last, which tell most."""
        return self.passage.keys[max(start, end - _WORDS_BETWEEN) : end]

    def _new_group(self) -> dict[str, Any]:
        self.groups.append({"_end": {}, "_at": {}})
        return self.groups[-1]

    def _group_for(
        self, event: Event, following: Event | None, group: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The item that a product, thickness or size belongs to; None when it adds nothing."""
        if self._binds_next_product(event, following) and "product" in group:
            assert following is not None
            if following.values.get("product") != group["product"]:
                return self._new_group()
        if event.kind in CORE and group.get("_copied"):
            self._replace_copied(event, group)
        if not self._conflicts(event, group):
            return group
        end = group["_end"].get(event.kind, event.at)
        if event.kind == "size" and set(self._between(end, event.at)) == {","}:
            same = to_item({name: group.get(name) for name in event.values})
            if same == to_item(event.values) and same.length_m is not None:
                # "4x3, 4x3": two of them, or said twice?
                here = len(self.groups) - 1
                self.unclear.append(Unclear("dimensiones", (replace(same, quantity=2), same), here))
                _forget_size(group)
                return None
        if id(event) in self.sized_again and _has_size(group):
            return self._new_group()  # "isodec gris 10x5 e isodec blanco 4x3"
        if self._begins_new_sides(end, event, following, group):
            return self._new_group()
        more = self._binds_next_product(event, following) and self._joins(end, event.at)
        if not more and self._repeats(event, group):
            return None
        keys = self._between(end, event.at)
        if self._follows_not(event):
            return None  # "150, no 100"
        if self.passage.instead(event.at):
            return None
        if self._corrects(end, event):
            self._forget(event, group)
            return group
        nearest = next(
            (key for key in reversed(keys) if key in lx.OR_KEYS or key in ("y", "and")), ""
        )
        compared = event.kind != "size" and self.passage.has_cue("ask_compare")
        undecided = event.kind == "thickness" and not self._joins(end, event.at)
        if nearest in lx.OR_KEYS or compared or undecided:
            self._alternatives(event, group)
            return None
        if (
            event.kind == "size"
            and not self._joins(end, event.at)
            and not self._elsewhere(event, group)
            and not self._binds_next_product(event, following)
        ):
            # Two sizes and nothing that says that they are of two things: which is it?
            self.unclear.append(Unclear("dimensiones", (), len(self.groups) - 1))
            _forget_size(group)
            return None
        if event.kind == "size" and self._is_total(event) and not more:
            return self._check_total(event)
        return self._new_group()

    def _replace_copied(self, event: Event, group: dict[str, Any]) -> None:
        names = _SIZE if event.kind == "size" else tuple(event.values)
        if set(names) & group["_copied"]:
            for name in names:
                group.pop(name, None)
            group["_copied"] -= set(names)

    def _conflicts(self, event: Event, group: dict[str, Any]) -> bool:
        if event.kind == "product":
            return "product" in group
        if event.kind == "thickness":
            return "thickness_mm" in group
        has_sides = "length_m" in group or "width_m" in group
        if "area_m2" in event.values:
            return has_sides or "area_m2" in group
        if "area_m2" in group:
            return bool({"length_m", "width_m"} & event.values.keys())
        return any(name in group for name in event.values)

    def _repeats(self, event: Event, group: dict[str, Any]) -> bool:
        """Said again, or said otherwise: "10x5, o sea 50 m2"; but "4x3 y 4x3" are two."""
        between = self._between(group["_end"].get(event.kind, event.at), event.at)
        restated = between == ["("] and "area_m2" in event.values  # "10x5 (50 m2)"
        if event.kind == "size" and between and _ANOTHER.issuperset(between) and not restated:
            return False
        if all(group.get(name) == value for name, value in event.values.items()):
            return True
        stated = event.kind == "size" and ("area_m2" in group or "area_m2" in event.values)
        same_area = stated and _area_of(group) == _area_of(event.values)
        if not same_area or _area_of(group) is None:
            return False
        if "area_m2" in group:  # the sides say more
            group.pop("area_m2")
            group.update(event.values)
        return True

    def _begins_new_sides(
        self, end: int, event: Event, following: Event | None, group: dict[str, Any]
    ) -> bool:
        """ "4 de largo y 3 de ancho; 4 de largo y 2 de ancho": as long as the one before."""
        one_side = event.kind == "size" and len(event.values) == 1 and "area_m2" not in event.values
        other = following is not None and following.kind == "size" and len(following.values) == 1
        sized = {"length_m", "width_m"} <= group.keys()
        if not (one_side and other and sized) or self._corrects(end, event):
            return False
        assert following is not None
        return self._joins(end, event.at) and following.values.keys() != event.values.keys()

    def _follows_not(self, event: Event) -> bool:
        before = self.passage.key(event.at - 1)
        if before in lx.OF_KEYS:
            before = self.passage.key(event.at - 2)
        return before in ("no", "not")

    def _corrects(self, end: int, event: Event) -> bool:
        passage = self.passage
        marks = {"no", "sino", "nop"}
        between = self._between(end, event.at)
        if any(key in marks for key in between):
            return True
        if any(end <= start < event.at for start in self._corrections):
            return True
        denied = passage.keys[max(0, end - 6) : end]
        return "no" in denied and any(key in ("son", "es", "de") for key in between) and (
            "y" not in between
        )  # fmt: skip

    def _forget(self, event: Event, group: dict[str, Any]) -> None:
        if event.kind == "size":
            _forget_size(group)
        elif event.kind == "product":
            group.pop("product", None)
            self.unknown = [
                each for each in self.unknown
                if not (each.field == "producto" and each.item == len(self.groups) - 1)
            ]  # fmt: skip

    def _alternatives(self, event: Event, group: dict[str, Any]) -> None:
        """ "de 100 o 150": the customer has not decided."""
        here = len(self.groups) - 1
        name: Field = {"product": "producto", "thickness": "espesor"}.get(event.kind, "dimensiones")  # type: ignore[assignment]
        names = _SIZE if event.kind == "size" else (
            ("product",) if event.kind == "product" else ("thickness_mm",)
        )  # fmt: skip
        firsts = [to_item({each: group[each] for each in names if each in group})]
        second = to_item(event.values)
        before = [each for each in self.unclear if each.field == name and each.item == here]
        if before:  # a guess, or a third alternative
            firsts = list(before[0].options)
            self.unclear.remove(before[0])
        group["_unsure"] = {*group.get("_unsure", set()), *names}
        self.unclear.append(Unclear(name, (*firsts, second), here))

    def _joins(self, start: int, end: int) -> bool:
        between = self._between(start, end)
        if "+" in between:
            return True
        restates = "=" in between or ("(" in between and ")" not in between)
        return any(key in lx.JOIN_KEYS for key in between) and not restates

    def _elsewhere(self, event: Event, group: dict[str, Any]) -> bool:
        """ "living (5x4), dormitorio (3x3)"."""
        here, there = group.get("place"), self._place_near(event)
        return event.kind == "size" and bool(here and there and here != there)

    def _is_total(self, event: Event) -> bool:
        before = {self.passage.key(at) for at in range(max(0, event.at - 3), event.at)}
        if "area_m2" not in event.values:
            return False
        end = event.end + (1 if self.passage.key(event.end) == "en" else 0)
        return bool(before & lx.TOTAL_KEYS) or self.passage.key(end) == "total"

    def _check_total(self, event: Event) -> dict[str, Any] | None:
        """ "10x5 y 3x2, en total 56 m2": either it adds up, or it is not clear."""
        areas = [_area_of(group) for group in self.groups]
        stated = event.values.get("area_m2")
        if stated is None or None in areas or sum(a for a in areas if a is not None) != stated:
            self.unclear.append(Unclear("dimensiones", (), len(self.groups) - 1))
            _forget_size(self.groups[-1])
        return None

    def _binds_next_product(self, event: Event, following: Event | None) -> bool:
        """ "20 m2 de lana de roca": the measure is the next product's."""
        if following is None or following.kind != "product" or event.kind == "product":
            return False
        gap = range(event.end, following.at)
        return len(gap) <= 2 and all(
            self.passage.key(at) in lx.OF_KEYS or self.passage.key(at) in lx.ARTICLE_KEYS
            for at in gap
        ) and len(gap) >= 1  # fmt: skip

    def _both_ways(self, event: Event, group: dict[str, Any]) -> bool:
        """ "con y sin flete": then it is as the catalogue has it, until one is chosen."""
        kind = event.kind
        end = group["_end"].get(kind, event.at)
        if kind in group.get("_copied", ()) or self._corrects(end, event):
            return False
        if group.get(kind) in (None, event.values[kind]):
            return False
        group.pop(kind)
        self.both_ways.add(kind)
        return True

    def _colour(self, event: Event, group: dict[str, Any]) -> bool:
        """Take a colour; False where two are named and neither corrects the other."""
        colour = event.values["colour"]
        if "colour" in group.get("_copied", ()):
            group["_copied"].discard("colour")
        elif "colour" in group and group["colour"] != colour:
            if not self._corrects(group["_end"].get("colour", event.at), event):
                options = tuple(Item(colour=each) for each in (group["colour"], colour) if each)
                self.unclear.append(Unclear("color", options, len(self.groups) - 1))
                group["_unsure"] = {*group.get("_unsure", set()), "colour"}
                return False
            self.unknown = [each for each in self.unknown if each.field != "color"]
        group["colour"] = colour
        return True

    def _share(self) -> None:
        """What was said once for several things."""
        groups = self.groups
        for group in groups:
            group["_own"] = "product" in group
        for index in range(1, len(groups)):
            self._inherit(groups[index], groups[index - 1], index)
        for index in range(len(groups) - 2, -1, -1):
            after = groups[index + 1].get("product")
            if "product" not in groups[index] and after and self.under_way in (None, after):
                self._inherit(groups[index], groups[index + 1], index)
        for index in range(len(groups) - 2, -1, -1):
            here, after = groups[index], groups[index + 1]
            both = self.of_both or bool(self.passage.said & (lx.ALL_KEYS | lx.EACH_KEYS))
            if any("size" in g["_end"] and not _has_size(g) for g in (here, after)):
                continue  # said of it, and not clear
            # "de 100 y de 150 para 10x5": one size for both thicknesses
            if (
                not _has_size(here)
                and _has_size(after)
                and (both or not (here["_own"] and after["_own"]))
            ):
                for name in _SIZE:
                    if name in after:
                        here[name] = after[name]
            # "10x5 de 100 y de 150": the same the other way round
            elif (
                _has_size(here)
                and not _has_size(after)
                and not after["_own"]
                and "thickness" in after["_end"]
            ):
                for name in _SIZE:
                    if name in here:
                        after[name] = here[name]
        self._share_thickness()
        everywhere = bool(self.passage.said & lx.ALL_KEYS)
        for name in ("freight", "anchors", "colour", "finishes"):
            having = [at for at, group in enumerate(groups) if name in group]
            if len(having) == 1 and len(groups) > 1:
                self._share_extra(name, having[0], everywhere)

    def _share_thickness(self) -> None:
        """ "dos techos de isodec, 12x7 y 6x4, espesor 150": said once, after all of them."""
        having = [group for group in self.groups if "thickness_mm" in group]
        alike = not any(group["_own"] for group in self.groups[1:])
        if (
            len(having) != 1
            or not alike
            or "thickness" not in having[0]["_at"]
            or "thickness_mm" in having[0].get("_unsure", ())
        ):
            return
        at = having[0]["_at"]["thickness"]
        last = max(group["_end"].get("size", 0) for group in self.groups)
        if at >= last and (self._set_off(at) or self.passage.key(at - 1) in lx.THICKNESS_KEYS):
            for group in self.groups:
                group.setdefault("thickness_mm", having[0].get("thickness_mm"))

    def _share_extra(self, name: str, place: int, everywhere: bool) -> None:
        """Of which things a colour, a finish, anchors or freight is said that is said once."""
        groups = self.groups
        donor = groups[place]
        kind = "finish" if name == "finishes" else name
        at = donor["_at"].get(kind, 0)
        others = [each for index, each in enumerate(groups) if index != place]
        alike = not any(group["_own"] for group in groups[1:])
        last = max(end for group in groups for what, end in group["_end"].items() if what in CORE)
        first = min((group["_at"]["size"] for group in groups if "size" in group["_at"]), default=0)
        trailing = at >= last
        if name == "freight" or everywhere or (name == "anchors" and (trailing or at < first)):
            shared = name == "freight" or everywhere or alike or "freight" in donor
        elif alike:
            # of one product in several sizes: with the product, or after all of them
            shared = at < first or (trailing and self._set_off(at))
        else:
            return
        if shared:
            for group in others:
                group.setdefault(name, donor[name])
        elif alike and name != "anchors":
            field: Field = "color" if name == "colour" else "terminaciones"
            for index, group in enumerate(groups):
                if group is not donor:
                    self.unclear.append(Unclear(field, (), index))

    def _set_off(self, at: int) -> bool:
        """Whether a comma or more stands before, as in "4x2 y 3x2, en gris"."""
        before = at - 1
        while before >= 0 and self.passage.keys[before] in (
            lx.OF_KEYS | lx.WITH_KEYS | lx.NOT_KEYS | {"kolor", "todo", "#"}
        ):
            before -= 1
        return before >= 0 and self.passage.tokens[before].kind == "mark"

    def _inherit(self, group: dict[str, Any], donor: dict[str, Any], index: int) -> None:
        if "product" in group or not donor.get("product") or self._names_unknown_thing(group):
            return
        group["product"] = donor["product"]
        if "thickness_mm" in donor and not {"product", "thickness_mm"} & donor.get(
            "_unsure", set()
        ):
            group.setdefault("thickness_mm", donor["thickness_mm"])

    def _names_unknown_thing(self, group: dict[str, Any]) -> bool:
        """ "y 20 m2 de porcelanato": a thing that we do not know, not more of the same."""
        end = group["_end"].get("size", -1)
        return (
            end >= 0
            and self.passage.key(end) in ("de", "of")
            and self.passage.is_unknown_word(end + 1)
        )


def _products_with_a_size(events: Sequence[Event]) -> set[int]:
    """The ids of the events of products that a size follows before the next product."""
    found: set[int] = set()
    named: Event | None = None
    for event in events:
        if event.kind == "product":
            named = event
        elif event.kind == "size" and named is not None:
            found.add(id(named))
            named = None
    return found


def _sizes_after_products(events: list[Event]) -> list[Event]:
    """ "techo (6x4) isodec 100 y pared (30m2) lana de roca 50": where sizes and products take
    turns, the size first and a product last, each size is the next product's. They are given
    in the order that `_add` expects, the product first."""
    kinds = [event.kind for event in events if event.kind in ("product", "size")]
    pairs = len(kinds) // 2
    if pairs < 2 or kinds != ["size", "product"] * pairs:
        return events
    ordered: list[Event] = []
    held: Event | None = None
    for event in events:
        if event.kind == "size":
            held = event
        elif event.kind == "product" and held is not None:
            ordered += [event, replace(held, at=event.end, end=event.end)]
            held = None
        else:
            ordered.append(event)
    return ordered


def _forget_size(group: dict[str, Any]) -> None:
    for name in _SIZE:
        group.pop(name, None)


def to_item(group: dict[str, Any]) -> Item:
    unsure = group.get("_unsure", set())
    values = {
        name: value
        for name, value in group.items()
        if name[0] != "_" and name not in unsure and value != ""
    }
    if "finishes" in values:
        values["finishes"] = tuple(values["finishes"].items())
    return Item(**values)


def size_of(length: Decimal, width: Decimal, quantity: int | None) -> dict[str, Any]:
    size: dict[str, Any] = {"length_m": length, "width_m": width}
    if quantity is not None:
        size["quantity"] = quantity
    return size


def sized_item(size: Event, quantity: int | None) -> Item:
    return replace(to_item(size.values), quantity=quantity)


def _area_of(group: dict[str, Any]) -> Decimal | None:
    if group.get("area_m2") is not None:
        area: Decimal = group["area_m2"]
        return area
    if group.get("length_m") is None or group.get("width_m") is None:
        return None
    product: Decimal = group["length_m"] * group["width_m"] * (group.get("quantity") or 1)
    return product


def _has_size(group: dict[str, Any]) -> bool:
    return any(name in group for name in _SIZE)
