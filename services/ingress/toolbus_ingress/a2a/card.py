"""The agent card of a caller. Its skills are the tools that the caller may see."""

from typing import Any

import msgspec

from toolbus_common import VERSION, strict_json
from toolbus_common.a2a.protocol import BEFORE, CURRENT, JSON_RPC, Json, Protocol
from toolbus_common.contracts import ProtocolFamily
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.tool_catalog import Catalogue

PATH = "/a2a"
CARDS = (
    "/a2a/agent-card.json",
    "/a2a/.well-known/agent-card.json",
    "/.well-known/agent-card.json",
    "/.well-known/agent.json",
)
LONGEST_SCHEMA = 2_000  # characters; of a longer schema, only property names are shown
LONGEST_DESCRIPTION = 4_000
_MODES = ["application/json", "text/plain"]
# A card needs a skill. This one is shown without a key, and is not a tool.
_ANY = {
    "id": "tools", "name": "Tools", "description": "Calls the tools of a key.", "tags": ["tools"],
}  # fmt: skip


def card_of(base_url: str, protocol: Protocol, skills: list[Json] | None) -> Json:
    """Return the agent card.

    Args:
        base_url: the gateway's public address.
        protocol: the protocol version of the client that reads the card.
        skills: the caller's skills; None without a caller.

    """
    url = f"{base_url}{PATH}"
    card: Json = {
        "name": "Toolbus",
        "description": (
            "Calls tools. Each skill is a tool: send a data part with its arguments, and its id as "
            "'skillId' in the message's metadata. A card that is requested with a key lists the "
            "skills of this key."
        ),
        "version": VERSION,
        "capabilities": {"streaming": True, "pushNotifications": False},
        "defaultInputModes": _MODES,
        "defaultOutputModes": _MODES,
        "skills": [_ANY] if skills is None else skills,
        "supportedInterfaces": [
            {"url": url, "protocolBinding": JSON_RPC, "protocolVersion": each.version}
            for each in (CURRENT, BEFORE)
        ],
    }
    if protocol is CURRENT:
        card["capabilities"]["extendedAgentCard"] = True
        bearer: Any = {"httpAuthSecurityScheme": {"scheme": "Bearer"}}
        return card | {
            "securitySchemes": {"key": bearer},
            "securityRequirements": [{"schemes": {"key": {"list": []}}}],
        }
    return card | {
        "url": url,
        "preferredTransport": JSON_RPC,
        "protocolVersion": "0.3.0",
        "supportsAuthenticatedExtendedCard": True,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        "security": [{"key": []}],
    }


def skills_of(caller: Caller, catalogue: Catalogue) -> list[Json]:
    """Return the tools that a caller may see, as skills."""
    return [_skill(each) for each in tools_of(caller, catalogue)]


def tools_of(caller: Caller, catalogue: Catalogue) -> list[Json]:
    """Return the definitions of the tools that a caller may see."""
    listed = catalogue.list_body(
        "tools/list", caller.grants, "", ProtocolFamily.LEGACY, caller.mode
    )
    tools: list[Json] = msgspec.json.decode(listed)["tools"]
    return tools


def _skill(tool: Json) -> Json:
    name = tool["name"]
    description = str(tool.get("description") or "")[:LONGEST_DESCRIPTION]
    schema = tool.get("inputSchema") or {}
    text = strict_json.dump(schema).decode()
    if len(text) > LONGEST_SCHEMA:
        text = ", ".join(schema.get("properties") or {})[:LONGEST_SCHEMA]
    return {
        "id": name,
        "name": tool.get("title") or name,
        "description": f"{description}\nArguments: {text}".strip(),
        "tags": [name.partition("__")[0]],
        "inputModes": _MODES,
        "outputModes": _MODES,
    }
