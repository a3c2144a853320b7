"""Options as typed dataclasses: defaults, a YAML mapping, then `key=value` texts, each laid over the one before.

    @dataclass(frozen=True)
    class RenderOptions:
        size: int = option(512, at_least=1)
        engine: Literal["CYCLES", "BLENDER_WORKBENCH"] = "CYCLES"

    load_options(RenderOptions, read_yaml(path), ["size=256"], section="render", origin=str(path))

Whatever does not fit raises a ValueError of one sentence with the key and its value; an unknown key comes with the
nearest valid one. Fields may be int, float, bool, str, Literal, Any, lists and tuples, mappings by name, `X | None`,
and other such dataclasses (sections).
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import reduce
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Options = TypeVar("Options")
LIMITS: dict[str, Callable[[float, float], bool]] = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def option(default: Any = MISSING, *, was: str | None = None, **metadata: Any) -> Any:
    """A dataclass field with limits.

    Args:
        default: none where the option must be given; lists and mappings are copied for every instance.
        was: the option's earlier name, which is refused with the new one.
        metadata: `at_least`, `above`, `at_most` and `below` bound a number, or every number of a list or mapping; the
            rest is for whoever reads the field.
    """
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata={"was": was, **metadata})
    return field(default=default, metadata={"was": was, **metadata})


def load_options(
    cls: type[Options],
    values: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    section: str = "",
    origin: str = "",
) -> Options:
    """The dataclass `cls` from its defaults, `values` laid over them, and `key=value` texts over both.

    Mappings are laid over each other key by key; anything else, lists too, is replaced.

    Args:
        values: e.g. what `read_yaml` gives; only those keys that differ from the defaults need be there.
        overrides: with dots in keys, e.g. "render.size=256". Text needs no quotes; other values are read as YAML.
        section: where the options stand, for messages, e.g. "data.masking".
        origin: where `values` come from, for messages, e.g. the path of the file.

    Raises:
        ValueError: a key is unknown or missing, or a value has another type or lies outside of its limits.
    """
    known = list(option_keys(cls, section))
    try:
        layers = [_defaults(cls), _check_section(cls, {} if values is None else values, section, known)]
    except ValueError as error:
        raise ValueError(f"{origin}: {error}" if origin else str(error)) from None
    layers += [_check_section(cls, _parse_override(text, known), section, known) for text in overrides]
    return _construct(cls, reduce(_merge, layers), section)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a file holds; an empty file is an empty one.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {_one_line(error)}") from error
    if not isinstance(content, dict | None):
        raise ValueError(f"{path} must map keys to values")
    return content or {}


def option_keys(cls: type, section: str = "") -> Iterator[str]:
    """Dotted keys of all options, those of sections after the section's own."""
    hints = get_type_hints(cls)
    for item in _options(cls):
        key = _join(section, item.name)
        yield key
        if inner := _section_class(hints[item.name]):
            yield from option_keys(inner, key)


def did_you_mean(word: str, choices: Sequence[str], otherwise: str) -> str:
    """ "did you mean X?" with the nearest of the choices, or `otherwise` where none is near."""
    close = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean {close[0]}?" if close else otherwise


def nearest_key(key: str, known: Sequence[str]) -> str:
    """ "did you mean X?" for a dotted key: a like name in its section, its name elsewhere, any like key; or else
    which keys the section has."""
    section, _, name = key.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == section]
    if close := difflib.get_close_matches(name, siblings, n=1):
        return f"did you mean {_join(section, close[0])}?"
    if elsewhere := [other for other in known if other.rpartition(".")[2] == name]:
        return f"did you mean {min(elsewhere, key=len)}?"
    if section and siblings:
        return f"{section} has {', '.join(siblings)}"
    return did_you_mean(key, known, f"there are {', '.join(sorted({other.partition('.')[0] for other in known}))}")


def check_value(value: Any, kind: Any, key: str, **limits: Any) -> None:
    """ValueError unless a value is one of a type, within `limits` (see `option`)."""
    _convert(value, kind, key, limits)


class _Text(str):
    """A value from the command line, still to be read: how depends on the type of its option."""

    def read(self, kind: Any) -> Any:
        """As it stands where text is asked for, unless in quotes; otherwise as YAML."""
        import yaml

        kinds, optional = _alternatives(kind)
        quoted = len(self) > 1 and self[0] == self[-1] and self[0] in "'\""
        if not quoted and all(_is_text(kind) for kind in kinds):
            return None if optional and self == "null" else str(self)
        try:
            return yaml.safe_load(self)
        except yaml.YAMLError:
            return str(self)


def _parse_override(text: str, known: Sequence[str]) -> dict[str, Any]:
    """{"a": {"b": value}} of "a.b=value"."""
    key, sign, value = text.partition("=")
    if not (key.strip() and sign):
        raise ValueError(
            f"'{text}' is not of the form key=value, such as {known[-1]}=...: "
            "put no spaces around '=', and quotes around a value with spaces"
        )
    content: Any = _Text(value)
    for part in reversed(key.split(".")):
        content = {part: content}
    return content


def _check_section(cls: type, values: Any, key: str, known: Sequence[str]) -> dict[str, Any]:
    """Those of a section's options that are given, with values of their types."""
    if isinstance(values, _Text):
        values = values.read(Any)
    if not isinstance(values, Mapping):
        raise ValueError(f"{key} = {_shown(values)} must be a mapping of options")
    hints, items = get_type_hints(cls), {item.name: item for item in _options(cls)}
    checked: dict[str, Any] = {}
    for name, value in values.items():
        full = _join(key, name)
        if name not in items:
            for item in items.values():
                if item.metadata.get("was") == name:
                    raise ValueError(f"{full} is now called {_join(key, item.name)}")
            raise ValueError(f"unknown key {full}: {nearest_key(full, known)}")
        inner = _section_class(hints[name])
        if inner is None or (value is None and inner is not hints[name]):
            checked[name] = _convert(value, hints[name], full, items[name].metadata)
        else:
            checked[name] = value if isinstance(value, inner) else _check_section(inner, value, full, known)
    return checked


def _convert(value: Any, kind: Any, key: str, limits: Mapping[str, Any]) -> Any:
    """The value as one of its type, or a ValueError."""
    if isinstance(value, _Text):
        value = value.read(kind)
    kinds, optional = _alternatives(kind)
    if value is None and optional:
        return None
    errors = []
    for alternative in kinds:
        try:
            return _convert_one(value, alternative, key, limits)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError(errors[0] + (", or null" if optional else ""))


def _convert_one(value: Any, kind: Any, key: str, limits: Mapping[str, Any]) -> Any:
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return load_options(kind, value, section=key)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in inner or type(value) not in {type(choice) for choice in inner}:
            raise ValueError(f"{key} = {_shown(value)} must be one of {', '.join(map(str, inner))}")
        return value
    if kind in KINDS:
        return _convert_scalar(value, kind, key, limits)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{key} = {_shown(value)} must be a mapping, such as {{name: value}}")
        return {str(name): _convert(item, inner[1], _join(key, name), limits) for name, item in value.items()}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"{key} = {_shown(value)} must be a list, such as [a, b]")
        kinds = inner if origin is tuple and Ellipsis not in inner else (inner[0],) * len(value)
        if len(kinds) != len(value):
            raise ValueError(f"{key} = {_shown(value)} must be a list of {len(kinds)}")
        items = [
            _convert(item, item_kind, f"{key}[{place}]", limits)
            for place, (item, item_kind) in enumerate(zip(value, kinds, strict=True))
        ]
        return tuple(items) if origin is tuple else items
    raise TypeError(f"{key}: options of the type {kind} are not supported")


def _convert_scalar(value: Any, kind: type, key: str, limits: Mapping[str, Any]) -> Any:
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError):
            value = float(value)  # YAML reads 1e-4 as text
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        quotes = " (put it in quotes)" if kind is str and isinstance(value, int | float) else ""
        raise ValueError(f"{key} = {_shown(value)} must be {KINDS[kind]}{quotes}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key} = {_shown(value)} must be a finite number")
    if isinstance(value, int | float) and not all(
        holds(value, limits[name]) for name, holds in LIMITS.items() if name in limits
    ):
        raise ValueError(f"{key} = {_shown(value)} must be {_range(limits)}")
    return value


def _range(limits: Mapping[str, Any]) -> str:
    if "at_least" in limits and "at_most" in limits:
        return f"between {limits['at_least']} and {limits['at_most']}"
    return " and ".join(f"{name.replace('_', ' ')} {limits[name]}" for name in LIMITS if name in limits)


def _merge(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{name: _merge(below.get(name), value) for name, value in above.items()}}


def _defaults(value: Any) -> Any:
    """The defaults of a dataclass, or the values of an instance, as nested dicts."""
    if not is_dataclass(value):
        return value
    given = {}
    for item in _options(value):
        if not isinstance(value, type):
            given[item.name] = _defaults(getattr(value, item.name))
        elif item.default is not MISSING:
            given[item.name] = _defaults(item.default)
        elif item.default_factory is not MISSING:
            given[item.name] = _defaults(item.default_factory())
    return given


def _construct(cls: type[Options], values: Mapping[str, Any], key: str) -> Options:
    hints, given = get_type_hints(cls), {}
    for item in _options(cls):
        full, inner = _join(key, item.name), _section_class(hints[item.name])
        if item.name in values:
            value = values[item.name]
            given[item.name] = _construct(inner, value, full) if inner and isinstance(value, dict) else value
        elif item.default is item.default_factory is MISSING:
            raise ValueError(f"{full} is missing: give it a value")
    return cls(**given)


def _options(cls: Any) -> list[Field[Any]]:
    return [item for item in fields(cls) if item.init]


def _alternatives(kind: Any) -> tuple[list[Any], bool]:
    """The types of a union without None, and whether that is one of them."""
    kinds = list(get_args(kind)) if get_origin(kind) in (Union, UnionType) else [kind]
    return [kind for kind in kinds if kind is not NoneType], NoneType in kinds


def _section_class(kind: Any) -> type | None:
    """The dataclass of a field that is a section, or one that may be null."""
    kinds, _ = _alternatives(kind)
    return kinds[0] if len(kinds) == 1 and is_dataclass(kinds[0]) else None  # type: ignore[return-value]


def _is_text(kind: Any) -> bool:
    return kind is str or (get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind)))


def _join(section: str, name: Any) -> str:
    return f"{section}.{name}" if section else str(name)


def _shown(value: Any) -> str:
    """A value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
