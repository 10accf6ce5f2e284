"""Saved queries: SQL files whose comments describe the query and its parameters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from toolbus_common.errors import InvalidError, UnknownEntryError
from toolbus_common.saved_queries.timestamps import moment, written

_PARAMETER = re.compile(r"-- (\w+): (\w+)(?: = (\S+))? \| (.+)")
_USED = re.compile(r"\{(\w+):\s*(\w+)\}")
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter. `type` is a ClickHouse type; if `usual` is None, a value is required."""

    name: str
    type: str
    usual: str | None
    about: str


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved query with its description and parameters."""

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    sql: str

    def bound(self, given: Mapping[str, str], now: datetime) -> dict[str, str]:
        """Return the value of each parameter as ClickHouse text.

        Raises:
            InvalidError: a value is missing, invalid, or given for an unknown parameter.

        """
        known = {parameter.name for parameter in self.parameters}
        for name in given.keys() - known:
            listed = ", ".join(sorted(known)) or "none"
            raise InvalidError(
                f"'{self.name}' has no parameter '{name}'; its parameters are: {listed}."
            )
        return {each.name: self._value(each, given, now) for each in self.parameters}

    def _value(self, parameter: Parameter, given: Mapping[str, str], now: datetime) -> str:
        value = given.get(parameter.name, parameter.usual)
        if value is None:
            raise InvalidError(
                f"'{self.name}' requires the parameter {parameter.name}: {parameter.about}."
            )
        return written(moment(value, now)) if parameter.type == "DateTime" else value


def read(name: str, text: str) -> Saved:
    """Parse the text of a query file. Raises `InvalidError` if it does not have the form."""
    lines = text.strip().split("\n")
    if not _NAME.fullmatch(name):
        raise InvalidError(f"'{name[:40]}' is not a valid query name; use a-z, 0-9 and '-'.")
    if not lines[0].startswith("-- "):
        raise InvalidError(f"{name}.sql must begin with '-- ' and a description in one sentence.")
    parameters, at = [], 1
    while at < len(lines) and (match := _PARAMETER.fullmatch(lines[at])):
        parameters.append(Parameter(match[1], match[2], match[3], match[4]))
        at += 1
    sql = "\n".join(lines[at:])
    described = {(each.name, each.type) for each in parameters}
    if described != set(_USED.findall(sql)):
        raise InvalidError(
            f"The parameters that {name}.sql describes differ from those it uses; describe each "
            "in a line '-- name: Type = default | description' below the first line."
        )
    return Saved(name, lines[0].removeprefix("-- "), tuple(parameters), sql)


def known(own: Path | None) -> dict[str, Saved]:
    """Return all queries by name: the shipped queries, replaced or extended by `own`.

    Raises:
        InvalidError: `own` is not a directory, or one of its files is invalid.

    """
    found = _read_all(files(__package__) / "queries")
    if own is not None:
        if not own.is_dir():
            raise InvalidError(f"'{own}' is not a directory; give a directory with .sql files.")
        found |= _read_all(own)
    return dict(sorted(found.items()))


def chosen(name: str, own: Path | None) -> Saved:
    """Return the query with this name. Raises `UnknownEntryError` if there is none."""
    questions = known(own)
    if name not in questions:
        raise UnknownEntryError(
            f"There is no saved query '{name[:64]}'; see 'toolbus audit queries'."
        )
    return questions[name]


def _read_all(directory: Any) -> dict[str, Saved]:
    return {
        (name := file.name.removesuffix(".sql")): read(name, _text(file))
        for file in directory.iterdir()
        if file.name.endswith(".sql")
    }


def _text(file: Any) -> str:
    try:
        with file.open("rb") as opened:
            data: bytes = opened.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise InvalidError(f"'{file.name}' is larger than 64 KiB; shorten it.")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(
            f"'{file.name}' cannot be read as UTF-8 text; check its encoding and permissions."
        ) from error
