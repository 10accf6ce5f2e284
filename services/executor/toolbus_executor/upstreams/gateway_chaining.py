"""Limits for chained Toolbus gateways: on the hops of a call, and on the length of names.

No gateway knows the length of a chain. Therefore each gateway forwards the number of hops that a
call has made, and omits list entries of gateways that are too many hops away.
"""

from typing import Any

import msgspec

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import LoopDetectedError

HOPS = "dev.toolbus/hops"  # member of a call's `_meta`: the number of hops so far
MAX_HOPS = 4
NAME = "toolbus"
_BETWEEN = "__"
_NAMED = {"tools/list": "tools", "prompts/list": "prompts"}
_FAR = f"its path has more than {MAX_HOPS} gateways; one of them may lead back to this one"


class _Extra(msgspec.Struct):
    """The member of a call's extra members that is read here."""

    meta: dict[str, Any] = msgspec.field(name="_meta", default_factory=dict)


_extra = msgspec.json.Decoder(_Extra, strict=False).decode
_members = msgspec.json.Decoder(dict[str, Any]).decode


def onward(call: CallAdmitted) -> CallAdmitted:
    """Return the call to send to the next Toolbus gateway, with one more hop.

    Raises:
        LoopDetectedError: the call has already made `MAX_HOPS` hops.

    """
    meta = _extra(call.extra or "{}").meta
    hops = meta.get(HOPS)
    gone = hops if isinstance(hops, int) and hops > 0 else 0
    if gone >= MAX_HOPS:
        raise LoopDetectedError(
            f"The call passed {gone} Toolbus gateways and would be sent to another one, so the "
            "gateways probably form a loop. An operator must remove the server that closes the "
            "loop.",
            sent=False,
            limit_hops=MAX_HOPS,
        )
    extra = _members(call.extra or "{}") | {"_meta": meta | {HOPS: gone + 1}}
    return call.model_copy(update={"extra": msgspec.json.encode(extra).decode()})


def near(method: str, page: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a page of a list without entries that are too many gateways away.

    Also return the reason for each omitted entry, by name.
    """
    member = _NAMED.get(method, "")
    entries = page.get(member)
    if not isinstance(entries, list):
        return page, {}
    far = [each for each in entries if _is_far(each)]
    if not far:
        return page, {}
    entries_in_reach = [each for each in entries if not _is_far(each)]
    return page | {member: entries_in_reach}, {str(each["name"])[:96]: _FAR for each in far}


def _is_far(entry: Any) -> bool:
    name = entry.get("name") if isinstance(entry, dict) else None
    return isinstance(name, str) and name.count(_BETWEEN) > MAX_HOPS
