"""Values that document themselves: each field's help and range, as options, as JSON, and checked.

A frozen dataclass whose fields carry metadata: "help" says what the number means (a field without it is
no setting), "least", "most", "above" and "below" bound it, "choices" list what it may be, "option" is
its name where values are nested ("flip" of scoring is "flip_test"), "kinds" are the classes that a
nested value may have. The command line is made from that, so nothing is said twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tinysqueeze.errors import UserError

Plain = dict[str, Any]  # what JSON can hold
Value = TypeVar("Value")


def setting(default: Any, help: str, **limits: Any) -> Any:
    """A documented field; `limits` are the other metadata."""
    return field(default=default, metadata={"help": help, **limits})


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


def settings_of(kind: type, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """All settings of a dataclass and of the values in its fields, in order, each option once."""
    hints = get_type_hints(kind)
    for f in _documented(kind):
        here, option = (*path, f.name), _option(f)
        kinds = f.metadata.get("kinds")
        if kinds:
            yield Setting(option, (*here, "name"), str, f.metadata["help"], tuple(kinds))
            yield from _of_each(kinds, here)
        elif is_dataclass(hints[f.name]):
            yield from settings_of(hints[f.name], here)
        else:
            text, limits = f.metadata["help"], _range(f)
            text += f" ({limits})" if limits else ""
            yield Setting(option, here, _plain_type(hints[f.name]), text, _choices(f, hints))


def _of_each(kinds: Mapping[str, type], path: tuple[str, ...]) -> Iterator[Setting]:
    """The settings of several classes: one that some of them share comes once, and names them."""
    found: dict[str, list[tuple[str, Setting]]] = {}
    for name, kind in kinds.items():
        for one in settings_of(kind, path):
            found.setdefault(one.option, []).append((name, one))
    for owners in found.values():
        first = owners[0][1]
        text = f"of {' and '.join(name for name, _ in owners)}: {first.help}"
        yield Setting(first.option, first.path, first.type, text, first.choices)


def check(value: Any) -> None:
    """Raises UserError for a setting of another type or out of its range, also in nested values."""
    hints = get_type_hints(type(value))
    for f in _documented(type(value)):
        found, choices = getattr(value, f.name), _choices(f, hints)
        if not choices and not _fits(found, f, hints):
            wanted = _plain_type(hints[f.name]).__name__
            raise UserError(f"{_option(f)} must be of type {wanted}, not {found!r}")
        if is_dataclass(found):
            check(found)
        elif choices and found not in choices:
            known = ", ".join("none" if one is None else str(one) for one in choices)
            raise UserError(f"no {_option(f)} named {found!r}; there are {known}")
        elif not _inside(found, f.metadata):
            limits = _range(f)
            verb = "is" if limits.startswith("a share") else "must be"
            raise UserError(f"{_option(f)} {verb} {limits}, not {found}")


def changed(value: Value, **options: Any) -> Value:
    """The same with some settings changed, by their options' names. Raises UserError.

    A whole nested value replaces the one in the field of that name.
    """
    nested = {name: new for name, new in options.items() if is_dataclass(new)}
    if nested:
        _refuse_unknown(type(value), nested, {f.name: f for f in _documented(type(value))})
        value = replace(value, **nested)  # type: ignore[type-var]
        options = {name: new for name, new in options.items() if name not in nested}
    known = {one.option: one for one in settings_of(type(value))}
    _refuse_unknown(type(value), options, known)
    plain = to_plain(value)
    kinds_first = sorted(options.items(), key=lambda item: known[item[0]].path[-1] != "name")
    for option, new in kinds_first:
        *outer, last = known[option].path
        place = plain
        for name in outer:
            place = place[name]
        if last == "name":  # of what the old kind said, the new one keeps what it knows too
            kind = _kind(_find(type(value), outer), new)
            same = {f.name for f in _documented(kind)}
            for name in set(place) - same:
                del place[name]
        place[last] = new
    return from_plain(type(value), plain)


def to_plain(value: Any) -> Plain:
    """Nested dicts, ready for JSON; a value of several kinds has its "name"."""
    plain: Plain = {}
    for f in _documented(type(value)):
        found = getattr(value, f.name)
        if is_dataclass(found):
            names = {kind: name for name, kind in f.metadata.get("kinds", {}).items()}
            named = {"name": names[type(found)]} if names else {}
            plain[f.name] = named | to_plain(found)
        else:
            plain[f.name] = list(found) if isinstance(found, tuple) else found
    return plain


def from_plain(kind: type[Value], plain: Mapping[str, Any]) -> Value:
    """The reverse of `to_plain`; what is missing is as the class says. Raises UserError."""
    hints, known = get_type_hints(kind), {f.name: f for f in _documented(kind)}
    _refuse_unknown(kind, plain, known)
    chosen: Plain = {}
    for name, found in plain.items():
        kinds = known[name].metadata.get("kinds")
        if kinds or is_dataclass(hints[name]):
            if not isinstance(found, Mapping):
                raise UserError(
                    f"{kind.__name__.lower()}: {name} holds settings of its own, not {found!r}; an "
                    "earlier version wrote it otherwise"
                )
            inner = dict(found)
            own = _kind(known[name], inner.pop("name", None)) if kinds else hints[name]
            found = from_plain(own, inner)
        chosen[name] = tuple(found) if isinstance(found, list) else found
    return kind(**chosen)


def _documented(kind: type) -> list[Field[Any]]:
    return [f for f in fields(kind) if "help" in f.metadata]


def _option(f: Field[Any]) -> str:
    return str(f.metadata.get("option", f.name))


def _find(kind: type, path: list[str]) -> Field[Any]:
    """The field that a path of names leads to."""
    *outer, last = path
    for name in outer:
        kind = get_type_hints(kind)[name]
    return next(f for f in fields(kind) if f.name == last)


def _kind(f: Field[Any], name: Any) -> type:
    """The class of that name. Raises UserError."""
    kinds: Mapping[str, type] = f.metadata["kinds"]
    if not isinstance(name, str) or name not in kinds:
        raise UserError(f"no {_option(f)} named {name!r}; there are {', '.join(kinds)}")
    return kinds[name]


def _refuse_unknown(kind: type, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UserError(
            f"{kind.__name__.lower()}: no such setting: {', '.join(unknown)}; there are "
            f"{', '.join(known)}"
        )


def _choices(f: Field[Any], hints: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a field may be: its "choices", or what its type Literal[...] (or None) lists."""
    if "choices" in f.metadata:
        return tuple(f.metadata["choices"])
    listed: list[Any] = []
    for part in _parts(hints[f.name]):
        if get_origin(part) is Literal:
            listed += get_args(part)
        elif part is type(None):
            listed.append(None)
    return tuple(listed)


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _plain_type(hint: Any) -> type:
    """int, float, bool, str or tuple."""
    first = _parts(hint)[0]
    origin = get_origin(first)
    found = str if origin is Literal else origin or first
    assert isinstance(found, type)
    return found


def _fits(found: Any, f: Field[Any], hints: Mapping[str, Any]) -> bool:
    """Whether a value has the type that its field says (a float may be a whole number)."""
    if "kinds" in f.metadata:
        return type(found) in f.metadata["kinds"].values()
    kind = _plain_type(hints[f.name])
    if kind in (int, float):
        wanted = Integral if kind is int else Real
        return isinstance(found, wanted) and not isinstance(found, bool)
    if kind is tuple:
        return isinstance(found, tuple) and all(isinstance(part, str) for part in found)
    return isinstance(found, kind)


def _inside(number: Any, limits: Mapping[str, Any]) -> bool:
    """Not a number is outside of everything."""
    return (
        ("least" not in limits or number >= limits["least"])
        and ("above" not in limits or number > limits["above"])
        and ("most" not in limits or number <= limits["most"])
        and ("below" not in limits or number < limits["below"])
    )


def _range(f: Field[Any]) -> str:
    """A field's limits in words, or "" if it has none."""
    limits = f.metadata
    if limits.get("least") == 0 and limits.get("most") == 1:
        return "a share from 0 to 1"
    if limits.get("least") == 0 and limits.get("below") == 1:
        return "a share from 0 to less than 1"
    words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    return " and ".join(f"{word} {limits[key]}" for key, word in words.items() if key in limits)
