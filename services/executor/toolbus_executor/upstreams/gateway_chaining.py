"""Another Toolbus as a server: how far calls and names may go from gateway to gateway. Pure.

No gateway knows where a chain of them leads. So each tells the next how many steps a call has
made, and takes no names that have come from further away than a call could go.
"""

from typing import Any

import msgspec

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import LoopDetectedError

HOPS = "dev.toolbus/hops"  # of a call's `_meta`: the steps from one Toolbus to another so far
MOST_HOPS = 4
NAME = "toolbus"
_BETWEEN = "__"
_NAMED = {"tools/list": "tools", "prompts/list": "prompts"}
_FAR = f"it comes through more than {MOST_HOPS} gateways; does one of them lead back here?"


class _Beside(msgspec.Struct):
    """What comes along with a call, as far as it is read here."""

    meta: dict[str, Any] = msgspec.field(name="_meta", default_factory=dict)


_beside = msgspec.json.Decoder(_Beside, strict=False).decode
_members = msgspec.json.Decoder(dict[str, Any]).decode


def onward(call: CallAdmitted) -> CallAdmitted:
    """The call as the next Toolbus is to hear it.

    Raises:
        LoopDetectedError: it has gone far enough.

    """
    told = _beside(call.extra or "{}").meta
    hops = told.get(HOPS)
    gone = hops if isinstance(hops, int) and hops > 0 else 0
    if gone >= MOST_HOPS:
        raise LoopDetectedError(
            f"The call went through {gone} Toolbus gateways and would go to yet another: one of "
            "them leads back to itself. An operator has to take that server out.",
            sent=False,
            limit_hops=MOST_HOPS,
        )
    extra = _members(call.extra or "{}") | {"_meta": told | {HOPS: gone + 1}}
    return call.model_copy(update={"extra": msgspec.json.encode(extra).decode()})


def near(method: str, page: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A page of another Toolbus' list without what comes from too far, and why that is left out."""
    member = _NAMED.get(method, "")
    entries = page.get(member)
    if not isinstance(entries, list):
        return page, {}
    far = [each for each in entries if _is_far(each)]
    if not far:
        return page, {}
    kept = [each for each in entries if not _is_far(each)]
    return page | {member: kept}, {str(each["name"])[:96]: _FAR for each in far}


def _is_far(entry: Any) -> bool:
    name = entry.get("name") if isinstance(entry, dict) else None
    return isinstance(name, str) and name.count(_BETWEEN) > MOST_HOPS
