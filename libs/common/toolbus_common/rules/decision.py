"""The decision of the rules about a call."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision. At most one of `denied_by` and `approve_by` names a rule, `reason` explains it.

    `shadow` names the shadow rules that would have denied the call or required approval;
    `name:error` is one whose evaluation failed. `reads` names the arguments that rules read: they
    must match the tool's schema. None means all of them.
    """

    denied_by: str = ""
    approve_by: str = ""
    shadow: tuple[str, ...] = ()
    reason: str = ""
    reads: tuple[str, ...] | None = field(default=(), compare=False)


SILENT = Verdict()
