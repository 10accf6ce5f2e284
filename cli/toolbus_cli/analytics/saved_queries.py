"""Saved questions: SQL files that begin with a sentence, and say each parameter they take."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from toolbus_cli.analytics.timestamps import moment, written
from toolbus_cli.errors import CommandError
from toolbus_common.errors import InvalidError

_PARAMETER = re.compile(r"-- (\w+): (\w+)(?: = (\S+))? \| (.+)")
_USED = re.compile(r"\{(\w+):\s*(\w+)\}")
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value a question takes, of a type of ClickHouse's; None: it must be given."""

    name: str
    type: str
    usual: str | None
    about: str


@dataclass(frozen=True, slots=True)
class Saved:
    """A question with a name, ready to be asked."""

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    sql: str

    def bound(self, given: Mapping[str, str], now: datetime) -> dict[str, str]:
        """The value of every parameter, as text the engine reads. Raises `InvalidError`."""
        known = {parameter.name for parameter in self.parameters}
        for name in given.keys() - known:
            told = ", ".join(sorted(known)) or "none"
            raise InvalidError(f"'{self.name}' takes no '{name}'; it takes: {told}.")
        return {each.name: self._value(each, given, now) for each in self.parameters}

    def _value(self, parameter: Parameter, given: Mapping[str, str], now: datetime) -> str:
        said = given.get(parameter.name, parameter.usual)
        if said is None:
            raise InvalidError(
                f"'{self.name}' needs --param {parameter.name}=…: {parameter.about}."
            )
        return written(moment(said, now)) if parameter.type == "DateTime" else said


def read(name: str, text: str) -> Saved:
    """A question from its file. Raises `InvalidError` with what the file lacks."""
    lines = text.strip().split("\n")
    if not _NAME.fullmatch(name):
        raise InvalidError(f"'{name[:40]}' is no name of a question; use a-z, 0-9 and '-'.")
    if not lines[0].startswith("-- "):
        raise InvalidError(f"{name}.sql must begin with '-- ' and a sentence about what it tells.")
    parameters, at = [], 1
    while at < len(lines) and (match := _PARAMETER.fullmatch(lines[at])):
        parameters.append(Parameter(match[1], match[2], match[3], match[4]))
        at += 1
    sql = "\n".join(lines[at:])
    told = {(each.name, each.type) for each in parameters}
    if told != set(_USED.findall(sql)):
        raise InvalidError(
            f"{name}.sql must tell exactly the parameters it uses, each in a line "
            "'-- name: Type = usual | what it means' below its sentence."
        )
    return Saved(name, lines[0].removeprefix("-- "), tuple(parameters), sql)


def known(own: Path | None) -> dict[str, Saved]:
    """Every question that ships, and those in a directory of one's own, which win."""
    found = _read_all(files("toolbus_cli") / "saved")
    if own is not None:
        if not own.is_dir():
            raise InvalidError(f"{own} is no directory; name one with files that end in .sql.")
        found |= _read_all(own)
    return dict(sorted(found.items()))


def chosen(name: str, own: Path | None) -> Saved:
    """The question of a name. Raises `CommandError`."""
    questions = known(own)
    if name not in questions:
        raise CommandError(f"There is no saved query '{name}'; see 'toolbus audit queries'.")
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
            raise InvalidError(f"{file.name} is over 64 KiB; shorten it.")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{file.name} cannot be read; name a text file.") from error
