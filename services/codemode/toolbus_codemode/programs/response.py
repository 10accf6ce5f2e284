"""Responses to the model: printed text, and a program's result or error, of limited size.

A value that is too large is stored under a handle, and the response shows its shape and first
items.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from toolbus_codemode.programs.program_report import ProgramReport
from toolbus_codemode.programs.value_conversion import explained, shown
from toolbus_codemode.results.preview import preview
from toolbus_codemode.results.result_store import Results
from toolbus_codemode.sandbox.program import ProgramResult
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.topology import RESULT_SECONDS

LONGEST_ANSWER = 64_000  # characters of a response
PREVIEW_CHARACTERS = 4_000
_READ = {"starlark": 'results.read("{}")', "python": '(await results.read("{}"))'}


@dataclass(frozen=True, slots=True)
class Response:
    """Text of a response; `kept` is the number of parts that are stored under handles.

    `report` is what the program has used.
    """

    text: str
    is_error: bool
    output_bytes: int = 0
    kept: int = 0
    report: ProgramReport = field(default_factory=ProgramReport)


@dataclass(slots=True)
class Part:
    """Printed text, result or error; `value` is stored if the text is too large."""

    name: str
    text: str
    value: Any
    kept: bool = False


@dataclass(frozen=True, slots=True)
class ResponseBuilder:
    """Builder of responses to one caller's programs in one language."""

    results: Results
    key_digest: str
    engine: str

    async def answer(self, ended: ProgramResult) -> Response:
        """Build the response; store the largest parts until it is short enough."""
        parts = parts_of(ended)
        size = sum(len(part.text.encode(errors="replace")) for part in parts)
        for part in sorted(parts, key=lambda each: -len(each.text)):
            if sum(len(each.text) for each in parts) > LONGEST_ANSWER:
                await self._keep(part)
        text = "\n".join(part.text for part in parts)
        return Response(text, ended.error is not None, size, sum(part.kept for part in parts))

    async def _keep(self, part: Part) -> None:
        whole = len(part.text)
        try:
            handle = await self.results.keep(self.key_digest, part.value)
        except ToolbusError as error:
            part.text = (
                f"{part.text[:PREVIEW_CHARACTERS]}\n… the {part.name} has {whole:,} characters, "
                f"and could not be stored: {error.reason} Only the beginning is shown. Select "
                "fields, "
                "count or slice in the program and return less."
            )
            return
        part.kept = True
        until = datetime.now(UTC) + timedelta(seconds=RESULT_SECONDS)
        part.text = (
            f"The {part.name} has {whole:,} characters, too many to return; it is stored as "
            f"{handle!r} until {until:%H:%M} UTC. Select from it in a program: "
            f"{_READ[self.engine].format(handle)}\n{preview(part.value)}"
        )


def parts_of(ended: ProgramResult) -> list[Part]:
    """Return the parts of a response: prints, then the result or the error."""
    prints = ended.prints.rstrip("\n")
    parts = [Part("print", prints, prints)] if ended.prints else []
    if ended.error is not None:
        message = explained(ended.error)
        parts.append(Part("error", message, message))
    elif ended.value is not None or not parts:
        parts.append(Part("result", shown(ended.value), ended.value))
    return parts
