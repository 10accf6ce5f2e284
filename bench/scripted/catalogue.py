"""Definitions of the company's 508 tools: long descriptions, nested objects."""

from typing import Any

from scripted.company import MAX_PER_PAGE, USUAL_PAGE, VERBS
from scripted.nouns import NOUNS, SERVERS, Noun

Schema = dict[str, Any]
_DOES = {
    "list": "List {plural}, a page at a time, optionally filtered by any of their fields",
    "get": "Get one {one} by its id",
    "search": "Search {plural} by a word in any of their fields",
    "create": "Create a new {one}",
    "update": "Update fields of an existing {one}",
    "delete": "Delete one {one} for good",
    "count": "Count the {plural} that pass a filter, without reading them",
    "archive": "Archive one {one}, so that lists no longer show it",
}
_NOTES = (
    (
        "Use this tool when the person you work for refers to {plural} of {server}, even if "
        "they use another word for them; for things kept elsewhere use the tools of that "
        "server."
    ),
    (
        "Ids are opaque strings such as `{example}`: never make one up, take it from the result "
        "of another tool. Days are written YYYY-MM-DD and are days in UTC. Amounts are whole "
        "cents."
    ),
    (
        "The caller needs the permission `{server}:{plural}`; without it the tool reports an "
        "error that names the permission, and asking again does not help."
    ),
    (
        "When the service is busy the tool may answer with an error that says after how many "
        "seconds to try again. Wait that long, and do not send the same request more than three "
        "times."
    ),
    (
        "Records may refer to records of other servers that were deleted since; a tool that is "
        "asked for one of those reports that there is none, which is no fault of the request."
    ),
    (
        "Answers are JSON in the form of the output schema, and hold every field of a record "
        "whether it was asked for or not; fields this account may not see are left out rather "
        "than made empty."
    ),
    (
        "Do not use this tool to find out whether it works, and do not call it once for each of "
        "many {plural} when one call with a filter tells the same: every call is recorded and "
        "paid for."
    ),
    (
        "Results reflect what is stored at the time of the call. Two calls may differ when "
        "somebody else works on the same {plural} meanwhile; read a record again before you "
        "change it for good."
    ),
)
_TEXT: Schema = {"type": "string"}
_TRACE: Schema = {
    "type": "object",
    "description": (
        "How the request is attributed in the activity log of {server}. Leave it out unless you "
        "were told to act in the name of somebody else or as part of a numbered change request."
    ),
    "properties": {
        "on_behalf_of": {"type": "string", "description": "Id of the employee acted for."},
        "change": {"type": "string", "description": "Number of the change request, CHG-12345."},
    },
}


def tools() -> dict[str, list[Schema]]:
    """Return server -> definitions: 508 in all, the most used verbs of every noun first."""
    found: dict[str, list[Schema]] = {server: [] for server in SERVERS}
    for verb in VERBS:
        for noun in NOUNS.values():
            found[noun.server].append(_definition(noun, verb))
    for server in SERVERS[:4]:
        found[server].pop()
    return found


def name_of(noun: Noun, verb: str) -> str:
    """Return the name of a tool."""
    return f"{verb}_{noun.plural if verb in ('list', 'search', 'count') else noun.one}"


def _definition(noun: Noun, verb: str) -> Schema:
    words = {
        "plural": noun.plural, "one": noun.one, "server": noun.server, "example": noun.id_of(7),
    }  # fmt: skip
    sentences = [_DOES[verb] + ".", *_NOTES]
    properties, required = _INPUTS[verb](noun)
    trace = {**_TRACE, "description": str(_TRACE["description"]).format(**words)}
    return {
        "name": name_of(noun, verb),
        "description": " ".join(sentences).format(**words),
        "inputSchema": {
            "type": "object",
            "properties": {**properties, "trace": trace},
            "required": required,
        },
        "outputSchema": _output(noun, verb),
    }


def _field(name: str, kind: str) -> Schema:
    word, *rest = kind.split()
    text = f"The {name.replace('_', ' ')} as it is stored"
    if word == "int":
        return {"type": "integer", "description": f"{text}; a whole number."}
    if word == "choice":
        return {"type": "string", "enum": rest, "description": f"{text}; one of the words listed."}
    if word == "ref":
        return {"type": "string", "description": f"{text}; the id of one of the {rest[0]}."}
    return {"type": "string", "description": f"{text}{'; YYYY-MM-DD' if word == 'day' else ''}."}


def _fields(noun: Noun) -> dict[str, Schema]:
    return {name: _field(name, kind) for name, kind in noun.fields.items()}


def _filter(noun: Noun) -> Schema:
    return {
        "type": "object",
        "description": (
            f"Only {noun.plural} that have all of these values. A day or number may be given as a "
            "range instead, of which either end may be left out; both ends are included."
        ),
        "properties": {name: _wanted(name, kind) for name, kind in noun.fields.items()},
    }


def _wanted(name: str, kind: str) -> Schema:
    if kind.split(maxsplit=1)[0] not in ("int", "day"):
        return _field(name, kind)
    end = {"type": "integer" if kind.startswith("int") else "string"}
    return {
        "type": "object",
        "description": f"Bounds of the {name.replace('_', ' ')}.",
        "properties": {"least": end, "most": end},
    }


def _identity(noun: Noun) -> dict[str, Schema]:
    return {"id": {"type": "string", "description": f"The {noun.one}'s id, as a list tells it."}}


def _paged(noun: Noun) -> tuple[dict[str, Schema], list[str]]:
    page = {
        "type": "integer",
        "description": "Which page, from 1; the result's next_page says the next.",
        "default": 1,
    }
    size = {
        "type": "integer",
        "description": f"How many on a page, at most {MAX_PER_PAGE}.",
        "default": USUAL_PAGE,
    }
    return {"filter": _filter(noun), "page": page, "page_size": size}, []


def _searched(noun: Noun) -> tuple[dict[str, Schema], list[str]]:
    limit = {"type": "integer", "description": "How many at most, up to 25.", "default": 10}
    query = {
        "type": "string",
        "description": (
            f"A word or part of one, in any case, that stands in any field of the {noun.plural}. "
            "Operators and quotes have no meaning; send one word for the most results."
        ),
    }
    return {"query": query, "limit": limit}, ["query"]


def _identified(noun: Noun) -> tuple[dict[str, Schema], list[str]]:
    return _identity(noun), ["id"]


def _removed(noun: Noun) -> tuple[dict[str, Schema], list[str]]:
    reason = {
        "type": "string",
        "description": "Why, in a sentence for the activity log; people who follow it are told.",
    }
    return {**_identity(noun), "reason": reason}, ["id"]


def _changed(noun: Noun) -> tuple[dict[str, Schema], list[str]]:
    changes = {
        "type": "object",
        "description": "The fields to change, with their new values; all others stay.",
        "properties": _fields(noun),
    }
    return {**_identity(noun), "changes": changes}, ["id", "changes"]


_INPUTS = {
    "list": _paged,
    "get": _identified,
    "search": _searched,
    "create": lambda noun: (_fields(noun), [next(iter(noun.fields))]),
    "update": _changed,
    "delete": _removed,
    "count": lambda noun: ({"filter": _filter(noun)}, []),
    "archive": _removed,
}


def _output(noun: Noun, verb: str) -> Schema:
    record: Schema = {
        "type": "object",
        "properties": {"id": _TEXT, **{n: _plain(kind) for n, kind in noun.fields.items()}},
        "required": ["id", *noun.fields],
    }
    items = {"type": "array", "items": record}
    shapes: dict[str, Schema] = {
        "list": {
            "items": items, "total": {"type": "integer"}, "next_page": {"type": ["integer", "null"]}
        },
        "search": {"items": items},
        "count": {"count": {"type": "integer"}},
        "delete": {"deleted": {"type": "boolean"}},
        "archive": {"archived": {"type": "boolean"}},
    }  # fmt: skip
    if verb == "create":
        return {**record, "required": ["id"]}
    if verb not in shapes:
        return record
    return {"type": "object", "properties": shapes[verb], "required": list(shapes[verb])}


def _plain(kind: str) -> Schema:
    return {"type": "integer"} if kind.startswith("int") else _TEXT
