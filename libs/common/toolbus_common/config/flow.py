"""Information flow: the labels of tools, and what happens when a run combines them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from toolbus_common.config.base import ConfigModel

Reads = Literal["private", "public", "untrusted"]
Writes = Literal["outside", "inside", "nothing"]
FlowAction = Literal["off", "flag", "ask", "refuse"]
FlowScope = Literal["run", "session", "key"]
LONGEST_WINDOW = 7 * 86_400.0  # seconds
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def _several(value: Any) -> Any:
    """Return one label, or a list of labels, as a tuple.

    After this validator, strict mode treats the value as Python and would reject a list.
    """
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _seconds(value: Any) -> Any:
    """Return a duration such as `1h` in seconds; a number is in seconds already."""
    if isinstance(value, str) and value[-1:] in _UNITS and value[:-1].isdecimal():
        return int(value[:-1]) * _UNITS[value[-1]]
    return value


class FlowLabels(ConfigModel):
    """The labels of a server or of one of its tools; the labels of a tool replace the server's.

    `reads` says what content a call returns: `private` data, `public` data, or content that an
    untrusted person may have written (`untrusted`); one or several. `writes` says where a call
    sends data: `outside` of the organization, `inside` of it, or `nothing`. A label that is not set
    is guessed.
    """

    reads: Annotated[tuple[Reads, ...] | None, BeforeValidator(_several)] = Field(
        default=None, max_length=3
    )
    writes: Writes | None = None


class Flow(ConfigModel):
    """The reaction to a call that would send data outside in a run with private and untrusted data.

    `action` is the reaction: `refuse` rejects the call, `ask` requires an approval, `flag` only
    records it, and `off` does nothing. `per` says which calls belong together: those of a client
    `session`, of a whole `key`, or of a `run` that the client names in its trace. Without a
    session, it is the key. What a key has read counts for `window` (seconds, or `30m`, `1h`).

    The strictest values of all levels apply: the strictest action, the widest `per`, the longest
    window.
    """

    action: FlowAction = "refuse"
    per: FlowScope = "session"
    window: Annotated[float, BeforeValidator(_seconds)] = Field(
        default=3600.0, ge=1, le=LONGEST_WINDOW
    )

    @model_validator(mode="before")
    @classmethod
    def _from_action(cls, value: Any) -> Any:
        """Accept the action alone. YAML 1.1 reads `off` as false."""
        if value is False:
            return {"action": "off"}
        return {"action": value} if isinstance(value, str) else value

    @classmethod
    def strictest(cls, flows: "list[Flow]") -> "Flow | None":
        """Return the strictest combination; None if no flow is on."""
        active = [each for each in flows if each.action != "off"]
        if not active:
            return None
        return cls(
            action=max((each.action for each in active), key=_ACTIONS.index),
            per=max((each.per for each in active), key=_SCOPES.index),
            window=max(each.window for each in active),
        )


_ACTIONS: tuple[FlowAction, ...] = ("off", "flag", "ask", "refuse")
_SCOPES: tuple[FlowScope, ...] = ("run", "session", "key")
