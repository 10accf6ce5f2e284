"""What the rules say of a call."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Verdict:
    """At most one of `denied_by` and `approve_by` names a rule; `reason` is a sentence about it.

    `shadow` names the rules that would have refused the call or asked a person, were they not
    shadows; `name:error` is one that could not be evaluated. `reads` names the arguments that rules
    read to decide: these must be what the tool's schema says. None means all of them.
    """

    denied_by: str = ""
    approve_by: str = ""
    shadow: tuple[str, ...] = ()
    reason: str = ""
    reads: tuple[str, ...] | None = field(default=(), compare=False)


SILENT = Verdict()
