"""Translation of a whole OpenAPI document: tools, base URL, and omitted operations."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from toolbus_common.openapi.document import Document, DocumentError, Json
from toolbus_common.openapi.filters import Subject, chosen
from toolbus_common.openapi.names import tool_names
from toolbus_common.openapi.operations import Operation, OperationSource, bounds_for, operation_of
from toolbus_common.openapi.security import Alternatives, Scheme, alternatives, schemes_of
from toolbus_common.openapi.servers import base_of, first_server

METHODS = ("get", "head", "post", "put", "patch", "delete")  # other methods do not become tools
LONGEST_INSTRUCTIONS = 1000
MAX_OPERATIONS = 20_000


@dataclass(frozen=True, slots=True)
class Api:
    """A translated document. `left_out` contains the reason of each omitted operation."""

    version: str
    instructions: str
    base: str
    operations: dict[str, Operation]
    schemes: dict[str, Scheme]
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    method: str
    path: str
    item: Json
    node: Json

    @property
    def operation_id(self) -> str:
        value = self.node.get("operationId")
        return value if isinstance(value, str) else ""

    @property
    def tags(self) -> tuple[str, ...]:
        value = self.node.get("tags")
        return tuple(map(str, value)) if isinstance(value, list) else ()

    def subject(self, tool: str) -> Subject:
        """Return the properties of the operation that filter patterns are matched against."""
        return Subject(self.operation_id, tool, self.tags, self.method, self.path)


def translated(
    root: Json,
    source: str,
    *,
    base_url: str = "",
    include: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] = (),
    headers: Iterable[str] = (),
) -> Api:
    """Return the selected operations of a document that was read from `source`.

    `headers` are the names of headers that Toolbus sets. Arguments cannot set them.

    Raises:
        DocumentError: the whole document is unusable.

    """
    document = Document(root)
    base = base_of(root.get("servers"), source, base_url)
    schemes = schemes_of(document)
    own = frozenset({(each.place, each.name.lower()) for each in schemes.values()})
    own |= {("header", name.lower()) for name in headers}
    left_out: dict[str, str] = {}
    found = list(_found(document, left_out))
    names = tool_names([(each.operation_id, each.method.lower(), each.path) for each in found])
    wanted = {
        name: each
        for name, each in zip(names, found, strict=True)
        if chosen(each.subject(name), include, exclude)
    }
    bounds = bounds_for(len(wanted))
    operations: dict[str, Operation] = {}
    for name, each in wanted.items():
        try:
            _reject_other_server(root, each)
            security = _security(root, each.node)
            operation_source = OperationSource(
                document, each.method, each.path, each.node, each.item.get("parameters"), base,
                security, bounds, own,
            )  # fmt: skip
            operations[name] = operation_of(operation_source, name)
        except (DocumentError, RecursionError, ValueError, TypeError, AttributeError) as error:
            left_out[name] = _reason(error)
    return Api(_version(root), _instructions(root), base, operations, schemes, left_out)


def _found(document: Document, left_out: dict[str, str]) -> Iterator[_Found]:
    count = 0
    for path, node in document.root.get("paths", {}).items():
        try:
            item = document.resolved(node)
        except DocumentError as error:
            left_out[str(path)] = _reason(error)
            continue
        for method in METHODS:
            if isinstance(item.get(method), dict):
                count += 1
                if count > MAX_OPERATIONS:
                    raise DocumentError(
                        f"It has more than {MAX_OPERATIONS} operations; split the document."
                    )
                yield _Found(method.upper(), str(path), item, item[method])


def _reason(error: Exception) -> str:
    """Return the message of an error as a clause, like all reasons for omitted operations."""
    reason = str(error) if isinstance(error, DocumentError) else "it is malformed"
    return (reason[:1].lower() + reason[1:]).rstrip(".")


def _reject_other_server(root: Json, found: _Found) -> None:
    """Raise `DocumentError` if the operation has a different server address."""
    for servers in (found.node.get("servers"), found.item.get("servers")):
        if servers and first_server(servers) != first_server(root.get("servers")):
            raise DocumentError(
                "it has a server address of its own; configure this address as a separate server"
            )


def _security(root: Json, node: Json) -> Alternatives:
    return alternatives(node.get("security", root.get("security")))


def _info(root: Json, name: str) -> str:
    info = root.get("info")
    value: Any = info.get(name) if isinstance(info, dict) else None
    return value.strip() if isinstance(value, str) else ""


def _version(root: Json) -> str:
    return str(root["openapi"])[:16]


def _instructions(root: Json) -> str:
    texts = [each for each in (_info(root, "title"), _info(root, "description")) if each]
    return "\n\n".join(texts)[:LONGEST_INSTRUCTIONS]
