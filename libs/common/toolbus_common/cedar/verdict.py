"""What the rules say of a call."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """At most one of `denied_by` and `approve_by` names a rule; `reason` is a sentence about it.

    `shadow` names the rules that would have refused the call or asked a person, were they not
    shadows; `name:error` is one that could not be evaluated.
    """

    denied_by: str = ""
    approve_by: str = ""
    shadow: tuple[str, ...] = ()
    reason: str = ""


SILENT = Verdict()
