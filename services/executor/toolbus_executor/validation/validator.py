"""Validation of one server's calls. The schemas are compiled when the server is listed."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Any

import jsonschema_rs
import msgspec

from toolbus_common.config import Guard, Server
from toolbus_common.config.servers.tools import Misfits
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, CatalogEntry
from toolbus_common.errors import InvalidArgumentsError
from toolbus_executor.resilience.failure_log import MisfitError
from toolbus_executor.validation.messages import errors_in
from toolbus_executor.validation.misfits import MAX_MISFITS, UNCHECKED, Misfit, misfit_of
from toolbus_executor.validation.schema_cost import MAX_VISITS, Bounds, UnboundedError, bounds_of

log = logging.getLogger(__name__)

STATE = '"requestState"'
COMPILE_SECONDS = 2.0  # for all new definitions of one listing
_LARGEST_PATTERN = 1 << 20  # bytes of one compiled pattern
# Only patterns that match in linear time are accepted. Patterns that need backtracking are
# rejected.
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=_LARGEST_PATTERN, dfa_size_limit=_LARGEST_PATTERN)
_decode = msgspec.json.Decoder().decode


class _Structured(msgspec.Struct):
    """The member of a result that the output schema describes."""

    structuredContent: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815 - the wire's own name


_structured = msgspec.json.Decoder(_Structured).decode


@dataclass(frozen=True, slots=True)
class CompiledSchema:
    """A compiled schema with the bounds of its cost."""

    schema: dict[str, Any]
    bounds: Bounds
    validator: jsonschema_rs.Validator

    def misfit(self, raw: bytes, whole: str, *, nulls: bool = False) -> Misfit | None:
        """Return the validation failure of this JSON value; None if it is valid.

        `whole` is the name of the value. If `nulls` is set, a null member counts as absent, because
        many models write null for absent members.
        """
        if self.bounds.visits(raw) > MAX_VISITS:
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
            errors = list(islice(self.validator.iter_errors(value), MAX_MISFITS + 1))
            known = self.schema.get("properties")
            names = known if isinstance(known, dict) else {}
            return misfit_of(errors, names, errors_in(errors, self.schema, whole))
        except BaseException as error:
            if not _is_library_failure(error):
                raise
            return UNCHECKED


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The compiled schemas of one definition."""

    arguments: CompiledSchema | None = None
    results: CompiledSchema | None = None
    why_not: str = ""
    late: bool = False  # the time limit was reached before its compilation


@dataclass(slots=True)
class Checks:
    """The compiled schemas of a server's tools.

    A tool whose schema cannot be used can still be called, because its server validates as well.

    Attributes:
        misfits: policy for invalid arguments.
        results: whether results are validated.
        tools: policies for single tools.
        unchecked: the tools without validation, each with the reason.
        output_schemas: whether a guard reads the output schemas, so that they are compiled too.

    """

    server: str
    misfits: Misfits = "report"
    results: bool = False
    tools: Mapping[str, Misfits] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    output_schemas: bool = False
    generation: int = 0  # raised whenever definitions are learned
    _arguments: dict[str, CompiledSchema] = field(default_factory=dict)
    _results: dict[str, CompiledSchema] = field(default_factory=dict)
    _known: dict[str, _Compiled] = field(default_factory=dict)  # by the definition's digest
    _learning: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Compile the schemas of new definitions in a thread, and drop those of removed tools."""
        async with self._learning:  # apply listings in their order
            if any(each.digest not in self._known for each in tools):
                self._known = await asyncio.to_thread(self._compiled, tools)
            self._take(tools)

    async def read_output_schemas(self, guards: Iterable[Guard]) -> None:
        """Compile output schemas from the next listing on, if one of these guards reads them."""
        wanted = reads_output_schemas(guards)
        if wanted != self.output_schemas:
            async with self._learning:
                self.output_schemas, self._known = wanted, {}

    def _take(self, tools: Collection[CatalogEntry]) -> None:
        """Use the compiled schemas of these tools, and log the tools that cannot be validated."""
        found = {each.name: self._known[each.digest] for each in tools}
        self._arguments = {name: each.arguments for name, each in found.items() if each.arguments}
        self._results = {name: each.results for name, each in found.items() if each.results}
        unchecked = {name: each.why_not for name, each in found.items() if each.why_not}
        for name in sorted(unchecked.keys() - self.unchecked.keys()):
            about = {"server": self.server, "tool": name, "reason": unchecked[name]}
            log.warning("schema.not_used", extra=about)
        self.unchecked = unchecked
        self.generation += 1

    def has_arguments(self, tool: str) -> bool:
        """Return whether arguments of a tool are validated."""
        return tool in self._arguments

    def has_result(self, tool: str) -> bool:
        """Return whether results of a tool are validated."""
        return self.results and tool in self._results

    def check_arguments(self, call: CallAdmitted) -> str:
        """Return a note about a call's invalid arguments for its event; empty without any.

        Raises:
            InvalidArgumentsError: the configuration rejects invalid arguments, or a rule read an
                invalid argument and may have misinterpreted it.

        """
        # In a later round trip of a call, the arguments were validated before.
        if call.method != TOOLS_CALL or STATE in call.extra:
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
            return ""  # no rule reads the arguments, and the server validates them too
        if found.concerns(call.checked) or (follows == "strict" and found is not UNCHECKED):
            raise InvalidArgumentsError(
                f"Invalid arguments: {found.text}. Nothing was sent; correct them and call again.",
                sent=False,
            )
        return found.note if follows == "report" else ""

    def check_result(self, call: CallAdmitted, raw: bytes) -> None:
        """Validate a result against the tool's output schema.

        Raises:
            MisfitError: the result violates the schema.

        """
        checked = self._results.get(call.tool)
        if checked is None or not self.results or call.method != TOOLS_CALL:
            return
        structured = bytes(_structured(raw).structuredContent)
        if structured:
            found = checked.misfit(structured, "structuredContent")
            problem = found.text if found is not None and found is not UNCHECKED else ""
        else:
            problem = "structuredContent is missing"
        if problem:
            raise MisfitError(
                f"The upstream's result violates the outputSchema of {call.tool}: {problem}. "
                "This is an error of the server, not of the arguments; the call was executed."
            )

    def fits(self, tool: str) -> Callable[[bytes], bool] | None:
        """Return the check of structured content for a guard of kind limits.

        It is None if the tool has no output schema, or one that cannot be used.
        """
        checked = self._results.get(tool)
        if checked is None:
            return None
        return lambda structured: checked.misfit(structured, "structuredContent") in (
            None, UNCHECKED,
        )  # fmt: skip

    def _compiled(self, tools: Collection[CatalogEntry]) -> dict[str, _Compiled]:
        until = monotonic() + COMPILE_SECONDS
        still_valid = {digest: each for digest, each in self._known.items() if not each.late}
        return {
            each.digest: still_valid.get(each.digest) or self._compile(each, until)
            for each in tools
        }

    def _compile(self, tool: CatalogEntry, until: float) -> _Compiled:
        if not tool.digest:
            return _Compiled(why_not="its definition could not be compared")
        if monotonic() > until:
            late = "the schemas of its server take too long to compile"
            return _Compiled(why_not=late, late=True)
        why_not: list[str] = []
        arguments, results = (
            _checked(tool.definition.get(member), member, why_not) if wanted else None
            for member, wanted in (
                ("inputSchema", True),
                ("outputSchema", self.results or self.output_schemas),
            )
        )
        return _Compiled(arguments, results, "; ".join(why_not))


def reads_output_schemas(guards: Iterable[Guard]) -> bool:
    """Return whether a guard checks that results fit the output schemas of their tools."""
    return any(each.kind == "limits" and each.options.get("output_schema") for each in guards)


def checks_of(name: str, declared: Server) -> Checks:
    """Return the checks for a configured server. They contain no compiled schemas yet."""
    tools = {own: each.validation for own, each in declared.tools.items() if each.validation}
    return Checks(name, declared.misfits, declared.validation in ("results", "both"), tools)


def _checked(schema: Any, member: str, why_not: list[str]) -> CompiledSchema | None:
    """Return a compiled schema; None if it allows all values or cannot be used.

    The reason is appended to `why_not`.
    """
    if not isinstance(schema, dict) or (member == "inputSchema" and _allows_all(schema)):
        return None
    try:
        bounds = bounds_of(schema)
        validator = jsonschema_rs.validator_for(
            schema, validate_formats=False, pattern_options=_PATTERNS, offline=True
        )
    except UnboundedError as error:
        why_not.append(f"{member}: {error}")
    except BaseException as error:
        if not _is_library_failure(error):
            raise
        why_not.append(f"{member} cannot be compiled; check the schema and its patterns")
    else:
        return CompiledSchema(schema, bounds, validator)
    return None


def _is_library_failure(error: BaseException) -> bool:
    """Return whether an error comes from the validation library. It can be a panic."""
    own = (ValueError, RecursionError, jsonschema_rs.ReferencingError)
    return isinstance(error, own) or type(error).__name__ == "PanicException"


def _allows_all(schema: dict[str, Any]) -> bool:
    """Return whether the schema allows every object.

    Ingress rejects arguments that are no object.
    """
    constraints = {
        name: structured for name, structured in schema.items() if structured not in ({}, [])
    }
    return constraints.keys() <= {"$schema", "title", "description", "type"} and (
        constraints.get("type", "object") == "object"
    )
