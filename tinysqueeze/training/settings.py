"""Values that document themselves: each field's help and range, as options, as JSON, and checked.

A frozen dataclass whose fields are declared by `ranges.setting` (a field without is no setting) and by types
as `ranges` knows them. A field may hold such a value itself, or one of the classes that its "kinds" list by
name; "option" is its name where values are nested ("flip" of scoring is "flip_test"). The command line is
made from that, so nothing is said twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from tinysqueeze.errors import UserError
from tinysqueeze.ranges import checked, hints_of, refuse_unknown

Plain = dict[str, Any]  # what JSON can hold
Value = TypeVar("Value")


@dataclass(frozen=True)
class Setting:
    """One number of a (nested) value: its option, where it is, what it may be (`ranges`), what it means."""

    option: str
    path: tuple[str, ...]
    hint: Any
    help: str


@dataclass(frozen=True)
class _Field:
    """A documented field; `kinds` are the classes that a nested value may have, by name if several."""

    option: str
    help: str
    hint: Any
    kinds: Mapping[str, type]

    def kind(self, name: Any) -> type:
        """The class of that name. Raises UserError."""
        if not isinstance(name, str) or name not in self.kinds:
            raise UserError(f"no {self.option} named {name!r}; there are {', '.join(self.kinds)}")
        return self.kinds[name]


ALONE = ""  # the name of the only kind


def _documented(kind: type) -> dict[str, _Field]:
    """The fields of a dataclass that are settings, by name."""
    hints, found = hints_of(kind), {}
    for f in fields(kind):
        if "help" in f.metadata:
            hint, about = hints[f.name], f.metadata
            kinds = about.get("kinds", {ALONE: hint} if is_dataclass(hint) else {})
            found[f.name] = _Field(about.get("option", f.name), about["help"], hint, kinds)
    return found


def settings_of(kind: type, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """All settings of a dataclass and of the values in its fields, in order, each option once."""
    for name, f in _documented(kind).items():
        here = (*path, name)
        if ALONE in f.kinds:
            yield from settings_of(f.hint, here)
        elif f.kinds:
            yield Setting(f.option, (*here, "name"), Literal.__getitem__(tuple(f.kinds)), f.help)
            yield from _of_each(f.kinds, here)
        else:
            yield Setting(f.option, here, f.hint, f.help)


def _of_each(kinds: Mapping[str, type], path: tuple[str, ...]) -> Iterator[Setting]:
    """The settings of several classes: one that some of them share comes once, and names them."""
    found: dict[str, list[tuple[str, Setting]]] = {}
    for name, kind in kinds.items():
        for one in settings_of(kind, path):
            found.setdefault(one.option, []).append((name, one))
    for owners in found.values():
        names, first = " and ".join(name for name, _ in owners), owners[0][1]
        yield replace(first, help=f"of {names}: {first.help}")


def check(value: Any) -> None:
    """Raises UserError for a setting of another type or out of its range, also in nested values.

    What is right becomes plain Python's: NumPy's numbers, lists for tuples.
    """
    known = {f.option: (name, f) for name, f in _documented(type(value)).items()}
    hints = {option: f.hint for option, (_, f) in known.items() if not f.kinds}
    given = {option: getattr(value, known[option][0]) for option in hints}
    for option, plain in checked(type(value).__name__.lower(), hints, given).items():
        object.__setattr__(value, known[option][0], plain)
    for option, (name, f) in known.items():
        found = getattr(value, name)
        if f.kinds and type(found) not in f.kinds.values():
            raise UserError(f"{option} must be of type {f.hint.__name__}, not {found!r}")
        if f.kinds:
            check(found)


def changed(value: Value, **options: Any) -> Value:
    """The same with some settings changed, by their options' names. Raises UserError.

    A whole nested value replaces the one in the field of that name.
    """
    kind = type(value)
    owner = kind.__name__.lower()
    nested = {name: new for name, new in options.items() if is_dataclass(new)}
    if nested:
        refuse_unknown(owner, "setting", nested, _documented(kind))
        value = replace(value, **nested)  # type: ignore[type-var]
        options = {name: new for name, new in options.items() if name not in nested}
    known = {one.option: one for one in settings_of(kind)}
    refuse_unknown(owner, "setting", options, known)
    plain = to_plain(value)
    kinds_first = sorted(options.items(), key=lambda item: known[item[0]].path[-1] != "name")
    for option, new in kinds_first:
        *outer, last = known[option].path
        place, inside = plain, kind
        for name in outer:
            place, field = place[name], _documented(inside)[name]
            inside = field.hint
        if last == "name":  # of what the old kind said, the new one keeps what it knows too
            for name in set(place) - set(_documented(field.kind(new))):
                del place[name]
        place[last] = new
    return from_plain(kind, plain)


def to_plain(value: Any) -> Plain:
    """Nested dicts, ready for JSON; a value of several kinds has its "name"."""
    plain: Plain = {}
    for name, f in _documented(type(value)).items():
        found = getattr(value, name)
        if f.kinds:
            own = next(key for key, kind in f.kinds.items() if kind is type(found))
            plain[name] = ({"name": own} if own else {}) | to_plain(found)
        else:
            plain[name] = list(found) if isinstance(found, tuple) else found
    return plain


def from_plain(kind: type[Value], plain: Mapping[str, Any]) -> Value:
    """The reverse of `to_plain`; what is missing is as the class says. Raises UserError."""
    known = _documented(kind)
    refuse_unknown(kind.__name__.lower(), "setting", plain, known)
    chosen: Plain = {}
    for name, found in plain.items():
        f = known[name]
        if f.kinds:
            if not isinstance(found, Mapping):
                raise UserError(
                    f"{kind.__name__.lower()}: {name} holds settings of its own, not {found!r}; an "
                    "earlier version wrote it otherwise"
                )
            inner = dict(found)
            own = f.hint if ALONE in f.kinds else f.kind(inner.pop("name", None))
            found = from_plain(own, inner)
        chosen[name] = tuple(found) if isinstance(found, list) else found
    return kind(**chosen)
