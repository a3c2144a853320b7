"""Options of a command as a dataclass, from `key=value` and positional arguments; `ss4d.config` checks the values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import MISSING, Field
from typing import Any, TypeVar

from ss4d import config
from ss4d.config import did_you_mean, load_options

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
    return config.option(default, text=text, positional=positional, prefix=prefix)


def from_arguments(kind: type[T], arguments: Sequence[str]) -> T:
    """The dataclass `kind` from a command line.

    Raises:
        ValueError: an argument that is not of the form key=value, an unknown key, with the nearest known one, a missing
            one, or a value of another type.
    """
    values, pairs = _sort(kind, arguments)
    return load_options(kind, values, pairs)


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


def _sort(kind: type, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Values of positional and collecting fields by name, and the arguments that are `key=value`."""
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
    return values, pairs


def _is_required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING
