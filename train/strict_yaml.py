"""A strict YAML loader: every text has one meaning.

`1e-4` is a float; `no`, `010`, `1_000` and `1:30` are strings, no key is given twice, and there are
no aliases.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from x2vlm.errors import ConfigError

MAX_CONFIG_BYTES = 1_000_000


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping. Raises `ConfigError`."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"{path.name} is larger than {MAX_CONFIG_BYTES:,} bytes; that is no run.",
                "config/file",
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path.name} is not UTF-8 text. Save it as UTF-8.", "config/file"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"The configuration {path} cannot be read: {error.strerror}.", "config/file"
        ) from error
    values = parse_yaml(text, path.name)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path.name} must hold `key: value` lines at its top level.", "config/file"
        )
    return values


def parse_yaml(text: str, where: str) -> Any:
    """YAML with one meaning per text; see the top of the file. Raises `ConfigError` with the
    line."""
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: {error.problem}.", "config/syntax") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML text.", "config/syntax") from error
    except RecursionError as error:
        raise ConfigError(f"{where} is nested too deeply.", "config/syntax") from error


def changed_texts(given: Any, read: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Texts that a later reader took for something else, each with its key: `010` as 8 or 10.

    Args:
        given: values as `parse_yaml` gave them.
        read: the same as typed values, mappings and lists.
    """
    if isinstance(given, str):
        if not isinstance(read, str):
            yield where, given
    elif isinstance(given, dict):
        for key, value in given.items():
            yield from changed_texts(value, read[key], f"{where}.{key}" if where else key)
    elif isinstance(given, list | tuple) and isinstance(read, list | tuple):
        for value, item in zip(given, read, strict=True):
            yield from changed_texts(value, item, where)


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases, duplicate keys and the guesses of YAML 1.1."""

    yaml_implicit_resolvers: typing.ClassVar = {}

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not used here", problem_mark=mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"the key {key!r} is not a word"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_WHOLE = "(?:0|[1-9][0-9]*)"
for _tag, _pattern in (
    ("null", r"~|null|"),
    ("bool", r"true|false"),
    ("int", rf"[-+]?{_WHOLE}"),
    (
        "float",
        rf"[-+]?(?:{_WHOLE}\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
        rf"|[-+]?{_WHOLE}[eE][-+]?[0-9]+|[-+]?\.inf|\.nan",
    ),
):
    _StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), None
    )
