"""Values that document themselves: each field's help and range, as options, as JSON, and checked.

A frozen dataclass whose fields carry metadata: "help" says what the number means (a field without it is
no setting), "least", "most", "above" and "below" bound it, "choices" list what it may be, "option" is
its name where values are nested ("flip" of scoring is "flip_test"), "kinds" are the classes that a
nested value may have. The command line is made from that, so nothing is said twice.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from math import inf
from numbers import Integral, Real
from operator import ge, gt, le, lt
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tinysqueeze.errors import UserError

Plain = dict[str, Any]  # what JSON can hold
Value = TypeVar("Value")
LIMITS = {"least": ("at least", ge), "above": ("above", gt), "most": ("at most", le),
          "below": ("below", lt)}  # fmt: skip
SHARES = {
    "at least 0 and at most 1": "a share from 0 to 1",
    "at least 0 and below 1": "a share from 0 to less than 1",
}


@dataclass(frozen=True)
class Setting:
    """One number of a (nested) value: where it is, and what the command line says of it.

    `type` is int, float, bool, str or tuple; `choices` are empty where anything in range will do.
    """

    option: str
    path: tuple[str, ...]
    type: type
    help: str
    choices: tuple[Any, ...] = ()
    check: Callable[[Any], None] = lambda value: None

    def read(self, text: str) -> Any:
        """The value that a user types. Raises UserError where it is of another type, or out of range."""
        try:
            value = self.type(text)
        except ValueError:
            value = text
        if value in (inf, -inf):
            raise UserError(f"{self.option} must be finite, not {text[:40]}")
        self.check(value)
        return value


@dataclass(frozen=True)
class _Field:
    """A documented field: what its metadata and its type say."""

    option: str
    about: Mapping[str, Any]
    of: type  # int, float, bool, str, tuple or a dataclass
    choices: tuple[Any, ...]  # those of the metadata, or what its type Literal[...] (or None) lists

    @property
    def kinds(self) -> Mapping[str, type]:
        """The classes that a nested value may have, by name; none where there is but one."""
        return self.about.get("kinds", {})

    @property
    def range(self) -> str:
        """The limits in words, or "" if there are none."""
        limits = (f"{w} {self.about[key]}" for key, (w, _) in LIMITS.items() if key in self.about)
        text = " and ".join(limits)
        return SHARES.get(text, text)

    def kind(self, name: Any) -> type:
        """The class of that name. Raises UserError."""
        if not isinstance(name, str) or name not in self.kinds:
            raise UserError(f"no {self.option} named {name!r}; there are {', '.join(self.kinds)}")
        return self.kinds[name]

    def check(self, found: Any) -> None:
        """Raises UserError for a value of another type or out of range, also in what is nested."""
        if is_dataclass(found) and self._fits(found):
            check(found)
        elif self.choices and found not in self.choices:
            known = ", ".join("none" if one is None else str(one) for one in self.choices)
            raise UserError(f"no {self.option} named {found!r}; there are {known}")
        elif not self.choices and not self._fits(found):
            raise UserError(f"{self.option} must be of type {self.of.__name__}, not {found!r}")
        elif not all(inside(found, self.about[key]) for key, (_, inside) in LIMITS.items()
                     if key in self.about):  # fmt: skip
            verb = "is" if self.range in SHARES.values() else "must be"
            raise UserError(f"{self.option} {verb} {self.range}, not {found}")

    def _fits(self, found: Any) -> bool:
        """Whether it is of the type; a float may be a whole number."""
        if self.kinds:
            return type(found) in self.kinds.values()
        if self.of is tuple and isinstance(found, tuple):
            return all(isinstance(part, str) for part in found)
        wanted = {int: Integral, float: Real}.get(self.of, self.of)
        return isinstance(found, wanted) and (type(found) is not bool or self.of is bool)


def _documented(kind: type) -> dict[str, _Field]:
    """The fields of a dataclass that are settings, by name."""
    hints, found = get_type_hints(kind), {}
    for f in fields(kind):
        if "help" in f.metadata:
            hint = hints[f.name]
            parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
            listed = [
                one for part in parts if get_origin(part) is Literal for one in get_args(part)
            ]
            listed += [None] * (NoneType in parts)
            first = get_origin(parts[0]) or parts[0]
            choices = tuple(f.metadata.get("choices", listed))
            own = str if first is Literal else first
            found[f.name] = _Field(f.metadata.get("option", f.name), f.metadata, own, choices)
    return found


def settings_of(kind: type, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """All settings of a dataclass and of the values in its fields, in order, each option once."""
    for name, f in _documented(kind).items():
        here, text = (*path, name), f.about["help"]
        if f.kinds:
            yield Setting(f.option, (*here, "name"), str, text, tuple(f.kinds))
            yield from _of_each(f.kinds, here)
        elif is_dataclass(f.of):
            yield from settings_of(f.of, here)
        else:
            text += f" ({f.range})" if f.range else ""
            yield Setting(f.option, here, f.of, text, f.choices, f.check)


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
    """Raises UserError for a setting of another type or out of its range, also in nested values."""
    for name, f in _documented(type(value)).items():
        f.check(getattr(value, name))


def changed(value: Value, **options: Any) -> Value:
    """The same with some settings changed, by their options' names. Raises UserError.

    A whole nested value replaces the one in the field of that name.
    """
    kind = type(value)
    nested = {name: new for name, new in options.items() if is_dataclass(new)}
    if nested:
        _refuse_unknown(kind, nested, _documented(kind))
        value = replace(value, **nested)  # type: ignore[type-var]
        options = {name: new for name, new in options.items() if name not in nested}
    known = {one.option: one for one in settings_of(kind)}
    _refuse_unknown(kind, options, known)
    plain = to_plain(value)
    kinds_first = sorted(options.items(), key=lambda item: known[item[0]].path[-1] != "name")
    for option, new in kinds_first:
        *outer, last = known[option].path
        place, inside = plain, kind
        for name in outer:
            place, field = place[name], _documented(inside)[name]
            inside = field.of
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
        if is_dataclass(found):
            names = {kind: {"name": name} for name, kind in f.kinds.items()}
            plain[name] = names.get(type(found), {}) | to_plain(found)
        else:
            plain[name] = list(found) if isinstance(found, tuple) else found
    return plain


def from_plain(kind: type[Value], plain: Mapping[str, Any]) -> Value:
    """The reverse of `to_plain`; what is missing is as the class says. Raises UserError."""
    known = _documented(kind)
    _refuse_unknown(kind, plain, known)
    chosen: Plain = {}
    for name, found in plain.items():
        f = known[name]
        if f.kinds or is_dataclass(f.of):
            if not isinstance(found, Mapping):
                raise UserError(
                    f"{kind.__name__.lower()}: {name} holds settings of its own, not {found!r}; an "
                    "earlier version wrote it otherwise"
                )
            inner = dict(found)
            own = f.kind(inner.pop("name", None)) if f.kinds else f.of
            found = from_plain(own, inner)
        chosen[name] = tuple(found) if isinstance(found, list) else found
    return kind(**chosen)


def _refuse_unknown(kind: type, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UserError(
            f"{kind.__name__.lower()}: no such setting: {', '.join(unknown)}; there are "
            f"{', '.join(known)}"
        )
