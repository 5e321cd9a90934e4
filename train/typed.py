"""Dataclasses from plain values, checked completely: unknown and missing keys, types, nested
blocks."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import re
import typing
from typing import Any

from jsonargparse import ArgumentParser

from train.strict_yaml import changed_texts
from x2vlm.errors import ConfigError


def build(cls: type, values: dict[str, Any], where: str = "") -> Any:
    """An instance of the dataclass `cls` from plain values, nested blocks included.

    Raises:
        ConfigError: an unknown or missing key (`config/key`), or a value of another type or range
            (`config/value`).
    """
    _check_keys(cls, values, where)
    parser = ArgumentParser(exit_on_error=False, parser_mode="json")
    parser.add_class_arguments(cls, "it", sub_configs=False)
    try:
        read = parser.parse_object({"it": copy.deepcopy(values)})  # it edits what it parses
        for key, text in changed_texts(values, read.it):
            raise ConfigError(
                f"{_join(where, key)} is {text!r}, which is a text and not "
                f"{_type_name(cls, key)}. Numbers are written like 10, 0.5 or 1e-4.",
                "config/value",
            )
        return parser.instantiate(read).it
    except ConfigError:
        raise
    except Exception as error:  # argparse's errors, TypeError and ValueError alike
        within: BaseException | None = error
        while within is not None:  # what a block inside says of its values
            if isinstance(within, ConfigError):
                raise within from None
            within = within.__cause__ or within.__context__
        match = re.search(r'(?:key "|required: )it\.?([^",\s]*)', str(error))
        key = match.group(1) if match else ""
        value = _get(values, key)
        wanted = _type_name(cls, key)
        raise ConfigError(
            f"{_join(where, key)} is {value!r}, which is not {wanted}.", "config/value"
        ) from error


def _check_keys(cls: type, values: Any, where: str) -> None:
    """Unknown and missing keys, named with the keys there are; recurses into nested dataclasses."""
    if not isinstance(values, dict):
        raise ConfigError(
            f"{where or 'The run'} must be a block of keys, not {values!r}.", "config/value"
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            known = ", ".join(sorted(fields))
            raise ConfigError(
                f"Unknown key {_join(where, key)!r}.{hint} Known keys: {known}.", "config/key"
            )
    for key, f in fields.items():
        if key not in values:
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise ConfigError(f"The key {_join(where, key)!r} is missing.", "config/key")
        else:
            _check_blocks(hints[key], values[key], _join(where, key))


def _check_blocks(hint: Any, value: Any, where: str) -> None:
    """`_check_keys` for every dataclass in a field's type: itself, an alternative of a union, or
    the values of a dict."""
    if dataclasses.is_dataclass(hint):
        _check_keys(hint, value, where)
    elif typing.get_origin(hint) is dict and isinstance(value, dict):
        for key, item in value.items():
            _check_blocks(typing.get_args(hint)[1], item, _join(where, key))
    elif isinstance(value, dict):
        for alternative in typing.get_args(hint):
            _check_blocks(alternative, value, where)


def _join(where: str, key: str) -> str:
    return ".".join(part for part in (where, key) if part)


def _get(values: Any, key: str) -> Any:
    for part in key.split(".") if key else []:
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _type_name(cls: Any, key: str) -> str:
    for part in key.split(".") if key else []:
        cls = typing.get_type_hints(cls).get(part, Any) if dataclasses.is_dataclass(cls) else Any
    return (
        cls.__name__
        if isinstance(cls, type) and not typing.get_args(cls)
        else str(cls).replace("typing.", "")
    )
