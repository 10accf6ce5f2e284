"""Coverage of guards: which guard checked which calls, compared with the configuration (no I/O)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.access.principal import Principal, person_of, principal_of
from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.config import Configuration, Key
from toolbus_common.contracts import TOOLS_CALL, RowsReply
from toolbus_common.contracts.model_calls import is_model_method, model_name
from toolbus_common.guards.attachment import attached, phases_of

MOST_IDS = 5  # call ids of one gap


@dataclass(slots=True)
class Share:
    """What one guard checked of the calls of one key to one tool, in one phase.

    `missing` counts calls without a check that the configuration at the time of the call required.
    `failed` counts failed checks. All other calls without a check are `exempt`: the guard is not
    attached to them, or an earlier configuration decided them.
    """

    customer: str
    key: str
    tool: str
    phase: str
    guard: str
    attached_by: tuple[str, ...] = ()
    calls: int = 0
    checked: int = 0
    missing: int = 0
    failed: int = 0
    bytes: int = 0
    checked_bytes: int = 0
    call_ids: list[str] = field(default_factory=list)

    @property
    def percent(self) -> float:
        """The share of the calls that the guard checked."""
        return round(100 * self.checked / self.calls, 2) if self.calls else 0.0

    @property
    def is_gap(self) -> bool:
        """Whether a check is missing or failed."""
        return bool(self.missing or self.failed)

    @property
    def exempt(self) -> int:
        """The number of calls that needed no check."""
        return self.calls - self.checked - self.missing - self.failed

    def add(self, row: Mapping[str, Any], *, expected: bool) -> None:
        """Count the checks of one row."""
        calls = int(row["calls"])
        if self.guard in row["failures"]:
            self.failed += calls
        elif self.guard in row["made"]:
            self.checked += calls
            self.checked_bytes += int(row["bytes"])
            return
        elif expected and row["current"]:
            self.missing += calls
        else:
            return
        self.call_ids = [*self.call_ids, *row["call_ids"]][:MOST_IDS]

    @property
    def as_data(self) -> dict[str, Any]:
        """The share as a dictionary for JSON."""
        names = (
            "customer", "key", "tool", "phase", "guard", "attached_by", "calls", "checked",
            "percent", "missing", "failed", "exempt", "bytes", "checked_bytes", "call_ids",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


class Coverage:
    """Comparison of recorded checks with the guards of a configuration."""

    def __init__(self, configuration: Configuration, own_keys: Mapping[str, Key]) -> None:
        self._declared = configuration
        self._keys = ConfigSnapshot.of(configuration, own_keys).keys
        self._shares: dict[tuple[str, ...], Share] = {}
        self._totals: dict[tuple[str, ...], list[int]] = {}  # calls and bytes of each phase
        self.unknown_keys: set[str] = set()

    def add_rows(self, reply: RowsReply, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Count the wanted rows of a reply to `GuardChecksQuery`."""
        for values in reply.rows:
            row = dict(zip(reply.columns, values, strict=True))
            if wanted(row):
                self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count the calls of one row."""
        before = row["event"] == "call.allowed"
        server, tool, method = str(row["server"]), str(row["tool"]), str(row["method"])
        shown = _shown(server, tool, method)
        call = (str(row["customer"]), str(row["key"]), shown)
        phase = phases_of(method)[0 if before else 1]
        total = self._totals.setdefault((*call, phase), [0, 0])
        total[0] += int(row["calls"])
        total[1] += int(row["bytes"])
        expected = self._expected(row, server, tool, method, phase)
        for guard in (*expected, *(each for each in row["made"] if each not in expected)):
            share = self._shares.setdefault(
                (*call, phase, guard), Share(*call, phase, guard, expected.get(guard, ()))
            )
            share.add(row, expected=guard in expected)

    def shares(self) -> list[Share]:
        """Return the share of every guard, gaps first."""
        for (*call, _), each in self._shares.items():
            each.calls, each.bytes = self._totals[tuple(call)]
        return sorted(self._shares.values(), key=lambda each: (not each.is_gap, each.percent))

    def gaps(self) -> list[Share]:
        """Return the shares with missing or failed checks."""
        return [each for each in self.shares() if each.is_gap]

    def unguarded(self) -> Iterator[tuple[str, str, str, int]]:
        """Yield the customer, key and tool of calls to which no guard applies, and their number."""
        guarded = {key[:3] for key in self._shares}
        for (customer, key, tool, phase), (calls, _) in self._totals.items():
            before = phase in {"arguments", "prompts"}
            if before and (customer, key, tool) not in guarded:
                yield customer, key, tool, calls

    def _expected(
        self, row: Mapping[str, Any], server: str, tool: str, method: str, phase: str
    ) -> dict[str, tuple[str, ...]]:
        principal = self._principal(str(row["key"]), str(row["user"]))
        if principal is None:
            self.unknown_keys.add(str(row["key"]))
            return {}
        guards = self._declared.guards
        found = attached(principal, server, tool, method)
        return {name: by for name, by in found.items() if phase in guards[name].on}

    def _principal(self, name: str, user: str) -> Principal | None:
        key = self._keys.get(name)
        if key is None:
            access = self._declared.access.get(name.partition(":")[0])
            if access is None:
                return None
            key = person_of(access, user)
        return principal_of(name, key, self._declared)


def _shown(server: str, tool: str, method: str) -> str:
    """Return the name of a tool or model; of other calls, the method and the server's name."""
    if is_model_method(method):
        return model_name(server, tool)
    if method == TOOLS_CALL:
        return full_name(server, tool)
    return f"{method} {full_name(server, tool) if tool else server}"


def selected(row: Mapping[str, Any], key: str, tool: str) -> bool:
    """Return whether the calls of a row are of this key and match this pattern of tools."""
    names = (full_name(row["server"], row["tool"]), model_name(row["server"], row["tool"]))
    return key in ("", row["key"]) and (not tool or any(granted((tool,), each) for each in names))
