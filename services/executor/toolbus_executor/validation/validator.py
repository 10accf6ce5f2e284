"""One server's schemas, compiled when it is listed and asked about its calls."""

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Any

import jsonschema_rs
import msgspec

from toolbus_common.config import Server
from toolbus_common.config.servers.tools import Misfits
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, CatalogEntry
from toolbus_common.errors import InvalidArgumentsError
from toolbus_executor.resilience.failure_log import MisfitError
from toolbus_executor.validation.messages import faults_in
from toolbus_executor.validation.misfits import MOST_MISFITS, UNCHECKED, Misfit, misfit_of
from toolbus_executor.validation.schema_cost import MOST_VISITS, Bounds, UnboundedError, bounds_of

log = logging.getLogger(__name__)

STATE = '"requestState"'
COMPILE_SECONDS = 2.0  # for all new definitions of one listing together
_LARGEST_PATTERN = 1 << 20  # bytes of one compiled pattern
# Linear in what they read: a pattern that would have to go back is not taken.
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=_LARGEST_PATTERN, dfa_size_limit=_LARGEST_PATTERN)
_decode = msgspec.json.Decoder().decode


class _Structured(msgspec.Struct):
    """The member of a result that its schema is about."""

    structuredContent: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815 - the wire's own name


_structured = msgspec.json.Decoder(_Structured).decode


@dataclass(frozen=True, slots=True)
class Checked:
    """One compiled schema."""

    schema: dict[str, Any]
    bounds: Bounds
    validator: jsonschema_rs.Validator

    def misfit(self, raw: bytes, whole: str, *, nulls: bool = False) -> Misfit | None:
        """What does not fit in this JSON; None if all does.

        With `nulls`, a member that is null may as well have been left out, as many models write it.
        """
        if self.bounds.visits(raw) > MOST_VISITS:
            return UNCHECKED
        try:
            value = _decode(raw)
            if self.validator.is_valid(value):
                return None
            if nulls and isinstance(value, dict) and None in value.values():
                value = {name: each for name, each in value.items() if each is not None}
                if self.validator.is_valid(value):
                    return None
            if not self.bounds.describable(raw):
                return Misfit(f"the schema does not allow {whole}", "the arguments (many)")
            errors = list(islice(self.validator.iter_errors(value), MOST_MISFITS + 1))
            known = self.schema.get("properties")
            names = known if isinstance(known, dict) else {}
            return misfit_of(errors, names, faults_in(errors, self.schema, whole))
        except BaseException as error:
            if not _given_up(error):
                raise
            return UNCHECKED


@dataclass(frozen=True, slots=True)
class _Compiled:
    """What is known of one definition."""

    arguments: Checked | None = None
    results: Checked | None = None
    why_not: str = ""
    late: bool = False  # there was no time for it


@dataclass(slots=True)
class Checks:
    """What a server's calls are held against. `unchecked` says of which tools nothing is, and why.

    A tool whose schema cannot be used stays callable: its server still judges for itself. `misfits`
    says what follows when arguments do not fit, `tools` the same for some of them.
    """

    server: str
    misfits: Misfits = "report"
    results: bool = False
    tools: Mapping[str, Misfits] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    _arguments: dict[str, Checked] = field(default_factory=dict)
    _results: dict[str, Checked] = field(default_factory=dict)
    _known: dict[str, _Compiled] = field(default_factory=dict)  # by the definition's digest
    _learning: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Compile what is new, beside the calls, and forget what is gone."""
        async with self._learning:  # what is listed later is learnt later
            if any(each.digest not in self._known for each in tools):
                self._known = await asyncio.to_thread(self._compiled, tools)
            self._take(tools)

    def _take(self, tools: Collection[CatalogEntry]) -> None:
        """Use what was compiled for these tools, and say of which there is nothing."""
        found = {each.name: self._known[each.digest] for each in tools}
        self._arguments = {name: each.arguments for name, each in found.items() if each.arguments}
        self._results = {name: each.results for name, each in found.items() if each.results}
        unchecked = {name: each.why_not for name, each in found.items() if each.why_not}
        for name in sorted(unchecked.keys() - self.unchecked.keys()):
            about = {"server": self.server, "tool": name, "why": unchecked[name]}
            log.warning("schema.not_used", extra=about)
        self.unchecked = unchecked

    def check_arguments(self, call: CallAdmitted) -> str:
        """Return which arguments do not fit, for the event of a call that goes on all the same.

        Raises:
            InvalidArgumentsError: with what to change, where misfits are refused, or where a rule
                has read an argument that does not fit: it may have misread it.

        """
        if call.method != TOOLS_CALL or STATE in call.extra:  # a later round: they were checked
            return ""
        checked = self._arguments.get(call.tool)
        if checked is None:
            return ""
        follows = self.tools.get(call.tool, self.misfits)
        if follows == "none" and call.checked == ():
            return ""
        found = checked.misfit(call.arguments, "the arguments", nulls=True)
        if found is None:
            return ""
        if found is UNCHECKED and call.checked == ():
            return ""  # its server judges, as nobody else has to
        if found.concerns(call.checked) or (follows == "strict" and found is not UNCHECKED):
            raise InvalidArgumentsError(
                f"Invalid arguments: {found.text}. Nothing was sent; correct them and call again.",
                sent=False,
            )
        return found.note if follows == "report" else ""

    def hold_to_word(self, call: CallAdmitted, raw: bytes) -> None:
        """Hold a result against what its server declares of it.

        Raises:
            MisfitError: it is not what was declared.

        """
        checked = self._results.get(call.tool)
        if checked is None or call.method != TOOLS_CALL:
            return
        told = bytes(_structured(raw).structuredContent)
        if told:
            found = checked.misfit(told, "structuredContent")
            fault = found.text if found is not None and found is not UNCHECKED else ""
        else:
            fault = "structuredContent is missing"
        if fault:
            raise MisfitError(
                f"The upstream's result breaks the outputSchema of {call.tool}: {fault}. "
                "That is the server's fault, not one of the arguments; the call has happened."
            )

    def _compiled(self, tools: Collection[CatalogEntry]) -> dict[str, _Compiled]:
        until = monotonic() + COMPILE_SECONDS
        kept = {digest: each for digest, each in self._known.items() if not each.late}
        return {each.digest: kept.get(each.digest) or self._compile(each, until) for each in tools}

    def _compile(self, tool: CatalogEntry, until: float) -> _Compiled:
        if not tool.digest:
            return _Compiled(why_not="its definition could not be compared")
        if monotonic() > until:
            late = "the schemas of its server take too long to compile"
            return _Compiled(why_not=late, late=True)
        why_not: list[str] = []
        arguments, results = (
            _checked(tool.definition.get(member), member, why_not) if wanted else None
            for member, wanted in (("inputSchema", True), ("outputSchema", self.results))
        )
        return _Compiled(arguments, results, "; ".join(why_not))


def checks_of(name: str, declared: Server) -> Checks:
    """Return the checks of a server as it is declared."""
    tools = {own: each.validation for own, each in declared.tools.items() if each.validation}
    return Checks(name, declared.misfits, declared.validation in ("results", "both"), tools)


def _checked(schema: Any, member: str, why_not: list[str]) -> Checked | None:
    """A schema compiled, unless it asks for nothing or cannot be used."""
    if not isinstance(schema, dict) or (member == "inputSchema" and _asks_nothing(schema)):
        return None
    try:
        bounds = bounds_of(schema)
        validator = jsonschema_rs.validator_for(
            schema, validate_formats=False, pattern_options=_PATTERNS, offline=True
        )
    except UnboundedError as error:
        why_not.append(f"{member}: {error}")
    except BaseException as error:
        if not _given_up(error):
            raise
        why_not.append(f"{member}: it cannot be compiled; is it valid, its patterns included?")
    else:
        return Checked(schema, bounds, validator)
    return None


def _given_up(error: BaseException) -> bool:
    """Whether the library could not go on, which it may say by a panic of its own."""
    own = (ValueError, RecursionError, jsonschema_rs.ReferencingError)
    return isinstance(error, own) or type(error).__name__ == "PanicException"


def _asks_nothing(schema: dict[str, Any]) -> bool:
    """Whether every object fits, as ingress lets no other arguments through."""
    asked = {name: told for name, told in schema.items() if told not in ({}, [])}
    return asked.keys() <= {"$schema", "title", "description", "type"} and (
        asked.get("type", "object") == "object"
    )
