"""Options as dataclasses, from YAML or from `key=value` on a command line, with unknown keys and types checked."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field
from typing import Any, TypeVar

from ss4d.config import did_you_mean

T = TypeVar("T")


def option(text: str, default: Any = MISSING, *, positional: bool = False, prefix: str = "") -> Any:
    """A field of an options dataclass.

    Args:
        text: what `--help` says about it.
        default: absent where the option must be given.
        positional: given by its place on the command line instead of `key=value`.
        prefix: the field is a list of the arguments that begin so, without that prefix; "*" collects all arguments
            that no other field takes.
    """
    metadata = {"text": text, "positional": positional, "prefix": prefix}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def from_mapping(kind: type[T], content: Mapping[str, Any], origin: str) -> T:
    """The dataclass `kind` from plain values.

    Args:
        origin: where the values come from, for messages.

    Raises:
        ValueError: an unknown key, with the nearest known one, a missing one, or a value of another type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(content, Mapping):
        raise ValueError(f"{origin} must map options to values, but it is {content!r}.")
    _refuse_unknown(content, kind, origin)
    required = [item.name for item in dataclasses.fields(kind) if _is_required(item)]  # type: ignore[arg-type]
    if missing := [name for name in required if name not in content]:
        raise ValueError(f"{origin} lacks {', '.join(missing)}.")
    try:
        found: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), dict(content)))
    except OmegaConfBaseException as error:
        raise ValueError(f"{origin}: {getattr(error, 'full_key', '')}: {str(error).splitlines()[0]}") from error
    return found


def from_arguments(kind: type[T], arguments: Sequence[str]) -> T:
    """The dataclass `kind` from a command line.

    Raises:
        ValueError: as `from_mapping`; an argument that is not of the form key=value.
    """
    return from_mapping(kind, _sort(kind, arguments), "the command line")


def read_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as nested values: "views.elevation=10" is {"views": {"elevation": 10}}.

    Raises:
        ValueError: a text of another form, or a value that is not YAML.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    content: Any = {}
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"{pair!r} is not of the form key=value, such as seeds=[0,1].")
        try:
            content = OmegaConf.merge(content, OmegaConf.from_dotlist([pair]))
        except YAMLError as error:
            raise ValueError(f"{pair!r}: the value is not YAML ({str(error).splitlines()[0]}).") from error
    plain: Any = OmegaConf.to_container(content) if content else {}
    return plain


def describe(kind: type) -> str:
    """The usage of a command with such options, and a line for each of them, for `--help`."""
    fields = sorted(dataclasses.fields(kind), key=lambda item: not item.metadata["positional"])
    usage = [_name(item) for item in fields if _is_required(item)]
    width = max(len(_name(item)) for item in fields) + 2
    lines = [f"  {_name(item):<{width}}{item.metadata['text']}{_default_text(item)}" for item in fields]
    return "\n".join([" ".join([*usage, "[KEY=VALUE ...]"]), "", *lines])


def _name(item: Field[Any]) -> str:
    """As it stands on the command line."""
    if item.metadata["prefix"]:
        return f"{item.metadata['prefix'].removesuffix('*')}KEY=VALUE"
    return item.name.upper() if item.metadata["positional"] else f"{item.name}="


def _default_text(item: Field[Any]) -> str:
    """The default of an option, where it says something."""
    default = item.default if item.default_factory is MISSING else item.default_factory()
    if default in (MISSING, None, False, []):
        return ""
    return f" (default: {str(default).replace(' ', '')})"


def _sort(kind: type, arguments: Sequence[str]) -> dict[str, Any]:
    """Values by field."""
    fields = dataclasses.fields(kind)
    positional = [item.name for item in fields if item.metadata["positional"]]
    prefixes = {item.metadata["prefix"]: item.name for item in fields if item.metadata["prefix"]}
    rest = prefixes.pop("*", None)
    keyed = [item.name for item in fields if item.name not in (*positional, *prefixes.values(), rest)]
    values: dict[str, Any] = {name: [] for name in (*prefixes.values(), *([rest] if rest else []))}
    pairs = []
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        prefix = next((prefix for prefix in prefixes if argument.startswith(prefix)), None)
        if prefix is not None and equals:
            values[prefixes[prefix]].append(argument.removeprefix(prefix))
        elif equals and key in keyed:
            pairs.append(argument)
        elif rest is not None and (equals or argument.startswith("~")):
            values[rest].append(argument)
        elif equals:
            advice = did_you_mean(key, [*keyed, *prefixes], f"there are {', '.join(keyed)}")
            raise ValueError(f"{argument!r}: there is no option {key}; {advice}")
        elif (unfilled := [name for name in positional if name not in values]) and not argument.startswith("-"):
            values[unfilled[0]] = argument
        else:
            raise ValueError(f"{argument!r} is not of the form key=value, such as {keyed[0]}=...")
    return values | read_pairs(pairs)


def _is_required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _refuse_unknown(values: Mapping[str, Any], kind: type, origin: str) -> None:
    types = typing.get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind)]
    for key, value in values.items():
        if key not in names:
            advice = did_you_mean(str(key), names, f"there are {', '.join(names)}")
            raise ValueError(f"{origin}: there is no option {key}; {advice}")
        for inner in (types[key], *typing.get_args(types[key])):
            if dataclasses.is_dataclass(inner) and isinstance(value, Mapping):
                _refuse_unknown(value, typing.cast(type, inner), f"{origin}: {key}")
