"""What facts have in common; what there is of them is in `facts`."""

from typing import ClassVar

from toolbus_common.contracts.calls import TOOLS_CALL
from toolbus_common.contracts.message import Message

EVERY_FACT = "tb.fact.>"


def subject_of(name: str, scope: str) -> str:
    """Where facts of a name and a customer are said."""
    return f"tb.fact.{name}.{scope}"


class Fact(Message):
    """What every fact has. `at` is seconds since the epoch; `scope` is the paying customer."""

    NAME: ClassVar[str]

    id: str
    at: float
    scope: str

    @property
    def subject(self) -> str:
        """Where this fact is said."""
        return subject_of(self.NAME, self.scope)


class CallFact(Fact):
    """What every fact about a call has."""

    call_id: str
    parent_id: str = ""
    trace_id: str = ""
    key: str = ""
    server: str
    tool: str
    method: str = TOOLS_CALL
