"""Skills of an agent as tools."""

from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Operations
from toolbus_common.openapi import BINDING
from toolbus_common.openapi.names import client_safe
from toolbus_executor.upstreams.a2a.card import Card, Skill

LONGEST_DESCRIPTION = 4_000
MAX_EXAMPLES, LONGEST_EXAMPLE = 5, 200
MAX_FILES = 16
_TALK = Skill("message", "Message", "Send a message to the agent.")
_INPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "The request to the agent, in words."},
        "data": {"type": "object", "description": "Structured data for the agent."},
        "files": {
            "type": "array",
            "maxItems": MAX_FILES,
            "description": "Files for the agent, each with base64 or url.",
            "items": {
                "type": "object",
                "properties": {
                    "base64": {"type": "string"},
                    "url": {"type": "string", "maxLength": 4_000},
                    "name": {"type": "string", "maxLength": 500},
                    "media_type": {"type": "string", "maxLength": 200},
                },
                "oneOf": [{"required": ["base64"]}, {"required": ["url"]}],
                "additionalProperties": False,
            },
        },
        "task_id": {
            "type": "string",
            "maxLength": 600,
            "description": (
                "The task_id of an earlier result, to answer the agent's question. Without "
                "message, data and files: wait for the result of this task."
            ),
        },
        "context_id": {
            "type": "string",
            "maxLength": 600,
            "description": "The context_id of an earlier result, to continue its conversation.",
        },
    },
    "anyOf": [{"required": [name]} for name in ("message", "data", "files", "task_id")],
    "additionalProperties": False,
}
_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "state": {"type": "string"},
        "task_id": {"type": "string"},
        "context_id": {"type": "string"},
        "data": {"type": "array"},
    },
    "required": ["state"],
}


@dataclass(frozen=True, slots=True)
class Operation:
    """A skill, as a tool."""

    skill: Skill
    definition: dict[str, Any]

    @property
    def binding(self) -> str:
        """A digest that identifies the skill, and the address and protocol of the agent."""
        return str(self.definition["_meta"][BINDING])


def operations_in(card: Card, wanted: Operations) -> tuple[dict[str, Operation], dict[str, str]]:
    """Return the tools by name, and the omitted skills with the reasons.

    Only the skills that `wanted` selects are considered. An agent without skills has one tool.
    """
    found: dict[str, Operation] = {}
    left_out: dict[str, str] = {}
    if card.omitted:
        left_out["skills"] = f"{card.omitted} more: a card can list at most {len(card.skills)}"
    for skill in card.skills or (_TALK,):
        if not _is_wanted(skill, wanted):
            continue
        name = client_safe(skill.id)
        if not name or name in found:
            why = "its id is empty or equal to that of another skill"
            left_out[skill.id[:200] or "skill"] = why
            continue
        found[name] = Operation(skill, _definition(card, skill, name))
    return found, left_out


def _is_wanted(skill: Skill, wanted: Operations) -> bool:
    known = (skill.id, *(f"tag:{each}" for each in skill.tags or ()))
    return any(granted(wanted.include, each) for each in known) and not any(
        granted(wanted.exclude, each) for each in known
    )


def _definition(card: Card, skill: Skill, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": (skill.name or skill.id)[:200],
        "description": _description(card, skill),
        "inputSchema": deepcopy(_INPUT),
        "outputSchema": deepcopy(_OUTPUT),
        "_meta": {BINDING: _binding(card, skill)},
    }


def _description(card: Card, skill: Skill) -> str:
    text = (skill.description or "").strip() or f"The skill {skill.name or skill.id}."
    lines = [text[:LONGEST_DESCRIPTION], f"Performed by the agent {card.name[:200]}."]
    examples = [each[:LONGEST_EXAMPLE] for each in (skill.examples or ())[:MAX_EXAMPLES]]
    lines += ["Examples of messages:", *(f"- {each}" for each in examples)] if examples else []
    return "\n".join(lines)


def _binding(card: Card, skill: Skill) -> str:
    interface = card.interface
    text = f"{interface.url} {interface.protocol.version} {interface.tenant} {skill.id}"
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
