"""Decision of the rules about a call."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision about a call.

    `denied_by` is the rule that denies the call, and `approve_by` is the rule that requires
    approval; at most one of them is set. `reason` explains the decision. `shadow` contains the
    shadow rules that would have denied the call or required approval. `name:error` means that the
    evaluation of a shadow rule failed. `reads` contains the arguments that rules read; they must
    match the tool's schema. None means all arguments.
    """

    denied_by: str = ""
    approve_by: str = ""
    shadow: tuple[str, ...] = ()
    reason: str = ""
    reads: tuple[str, ...] | None = field(default=(), compare=False)


SILENT = Verdict()
