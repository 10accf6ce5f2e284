"""Conversion of an A2A message to a tool call, and of the tool's result to parts."""

import base64
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.a2a.protocol import File, Json, Part, parts_of
from toolbus_common.errors import InvalidError
from toolbus_ingress.a2a.card import tools_of
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.tool_catalog import Catalogue

SKILL = "skillId"
MAX_PARTS = 64
_HOW = (
    "Send a data part with the arguments, and the skill's id as 'skillId' in the message's "
    "metadata."
)


def call_of(params: Json, caller: Caller, catalogue: Catalogue) -> tuple[str, Json]:
    """Return the tool and the arguments that a message requests.

    The skill is `skillId` in the metadata of the message or the request, or `skill` in a data part
    with `arguments`. A caller that sees only one tool can omit the skill. Without `arguments`, the
    message's text is used: as a JSON object of arguments, or as the value of the tool's only text
    parameter.

    Raises:
        InvalidError: the message does not name a skill, or does not fit its arguments.

    """
    message = params["message"]
    parts = parts_of(message)
    if not parts or len(parts) != len(message["parts"]):
        raise InvalidError(f"A message needs parts, which are objects. {_HOW}")
    if len(parts) > MAX_PARTS or any("text" not in each and "data" not in each for each in parts):
        raise InvalidError(f"A message may have {MAX_PARTS} parts, of text and data. {_HOW}")
    data = [each["data"] for each in parts if "data" in each]
    text = "\n".join(str(each["text"]) for each in parts if "text" in each).strip()
    skill = _skill(message) or _skill(params)
    if not skill and len(data) == 1 and isinstance(data[0], dict) and "skill" in data[0]:
        skill, data = data[0]["skill"], [data[0].get("arguments", {})]
    skill = skill or _only_tool(caller, catalogue)
    if not isinstance(skill, str) or not skill:
        raise InvalidError(f"The message names no skill. {_HOW} The agent card lists the skills.")
    if not data:
        return skill, _arguments_in(text, skill, caller, catalogue)
    if len(data) > 1 or not isinstance(data[0], dict):
        raise InvalidError(f"The arguments must be one data part with an object. {_HOW}")
    return skill, data[0]


def text_and_data(message: Json) -> tuple[Part, ...]:
    """Return the parts of a message with text and data."""
    found = []
    for each in parts_of(message):
        if "text" in each:
            found.append(Part(text=str(each["text"])))
        elif "data" in each:
            found.append(Part(data=each["data"]))
    return tuple(found)


def parts_in(result: bytes) -> tuple[tuple[Part, ...], bool]:
    """Return the parts for a tool's raw result, and whether it reports an error."""
    members = msgspec.json.decode(result)
    content = members.get("content") or []
    found = [part for each in content if (part := _part(each)) is not None]
    if "structuredContent" in members:
        found.append(Part(data=members["structuredContent"]))
    return tuple(found), members.get("isError") is True


def _skill(holder: Json) -> Any:
    metadata = holder.get("metadata")
    return metadata.get(SKILL) if isinstance(metadata, dict) else None


def _only_tool(caller: Caller, catalogue: Catalogue) -> str:
    """Return the name of the only tool that a caller sees; empty if it sees none or several."""
    listed = tools_of(caller, catalogue)
    return str(listed[0]["name"]) if len(listed) == 1 else ""


def _arguments_in(text: str, skill: str, caller: Caller, catalogue: Catalogue) -> Json:
    if not text:
        return {}
    if text.startswith("{"):
        try:
            parsed = strict_json.parse(text.encode())
        except strict_json.StrictJSONError:
            parsed = None
        if isinstance(parsed, dict):
            return parsed
    name = _text_parameter(skill, caller, catalogue)
    if not name:
        raise InvalidError(f"The text cannot be converted to the arguments of {skill!r}. {_HOW}")
    return {name: text}


def _text_parameter(skill: str, caller: Caller, catalogue: Catalogue) -> str:
    """Return the only text parameter of a tool that the caller sees; empty if there is none."""
    server, own = catalogue.names.meant(skill, "tools", "")
    if not catalogue.sees(caller.grants, server, own):
        return ""
    schema = (catalogue.definition(server, own) or {}).get("inputSchema") or {}
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    names = schema.get("required") or list(properties)
    if len(names) != 1:
        return ""
    about = properties.get(names[0])
    return names[0] if isinstance(about, dict) and about.get("type") == "string" else ""


def _part(content: Json) -> Part | None:
    kind = content.get("type")
    if kind == "text":
        return Part(text=str(content.get("text", "")))
    media = str(content.get("mimeType") or "")
    if kind in ("image", "audio"):
        return Part(file=File(base64=str(content.get("data", "")), media_type=media))
    if kind == "resource_link":
        name = str(content.get("name") or "")
        return Part(file=File(url=str(content.get("uri", "")), name=name, media_type=media))
    resource = content.get("resource")
    if kind != "resource" or not isinstance(resource, dict):
        return None
    media, name = str(resource.get("mimeType") or ""), str(resource.get("uri") or "")
    blob = resource.get("blob")
    if not isinstance(blob, str):
        blob = base64.b64encode(str(resource.get("text", "")).encode()).decode()
    return Part(file=File(base64=blob, name=name, media_type=media))
