"""Generator of the AsyncAPI 3 document, from a FastStream broker with every contract of the bus.

FastStream describes the messages that a broker receives and sends. This module adds the reply of a
query, the parameters of a subject, and the content type of events.
"""

from inspect import cleandoc
from typing import Any

import yaml
from faststream import AsyncAPI
from faststream.nats import NatsBroker

from reference.events import events, messages
from toolbus_common import VERSION
from toolbus_common.contracts import Message
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.contracts.queries.registry import QUERIES, REPLIES

EVENT_LINES = "application/x-ndjson"
TARGET = "target"
PARAMETERS = {
    "customer": "The customer that pays; the default customer is `default`.",
    TARGET: "The server of a call, or the service replica that the message is for.",
}
DESCRIPTION = """\
The messages between the services of Toolbus on NATS. "receive" is a query or a call that a \
service handles; "send" is an event that a service publishes to the stream EVENTS.

A message is the JSON document of its schema. A field with the format "binary" is not part of \
that document: its bytes follow after a newline. A message with events has one document per line. \
A reply that begins with "!" is an error, followed by a JSON document with `code` and `reason`. \
The publishers and subscribers of each subject, as the NATS server enforces them, are in the \
reference page "Events and subjects"."""


def generated() -> str:
    """Return the document as YAML."""
    document: dict[str, Any] = (
        AsyncAPI(
            _broker(), title="Toolbus", version=VERSION, description=DESCRIPTION,
            license={"name": "Apache-2.0"}, schema_version="3.0.0",
        )
        .to_specification()
        .to_jsonable()
    )  # fmt: skip
    _add_replies(document)
    _add_parameters(document)
    for event in events():
        document["components"]["messages"][f"{event.NAME}:Message"]["contentType"] = EVENT_LINES
    for section in (document["channels"], document["operations"], *document["components"].values()):
        ordered = dict(sorted(section.items()))
        section.clear()
        section.update(ordered)
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """YAML dumper that writes a text of several lines as a literal block."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def _broker() -> NatsBroker:
    broker = NatsBroker("nats://127.0.0.1:4222", protocol_version="1")
    for subject, message in messages().items():
        address = subject if subject in QUERIES else f"{subject}.{{{TARGET}}}"
        _receive(broker, address, message)
    for event in events():
        broker.publisher(
            subject_of(event.NAME, "{customer}"),
            title=event.NAME,
            description=cleandoc(event.__doc__ or ""),
            schema=event,
        )
    return broker


def _receive(broker: NatsBroker, address: str, contract: type[Message]) -> None:
    async def handle(message: Any) -> None:
        """Replace the service's handler, because the document is generated without services."""

    handle.__annotations__["message"] = contract
    description = cleandoc(contract.__doc__ or "")
    broker.subscriber(address, title=contract.__name__, description=description)(handle)


def _add_replies(document: dict[str, Any]) -> None:
    components = document["components"]
    for query, reply in sorted(REPLIES.items(), key=lambda pair: pair[0].__name__):
        name = reply.__name__
        schema = reply.model_json_schema(
            mode="serialization", ref_template="#/components/schemas/{model}"
        )
        components["schemas"] |= schema.pop("$defs", {})
        components["schemas"][name] = schema
        components["messages"][name] = {
            "title": name,
            "payload": {"$ref": f"#/components/schemas/{name}"},
        }
        channel = f"{query.__name__}.reply"
        document["channels"][channel] = {
            "address": None,  # the inbox that the request names
            "description": f"The reply to {query.__name__}.",
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        }
        document["operations"][query.__name__]["reply"] = {
            "address": {"location": "$message.header#/reply"},
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"}],
        }


def _add_parameters(document: dict[str, Any]) -> None:
    for channel in document["channels"].values():
        address = channel["address"] or ""
        named = [name for name in PARAMETERS if f"{{{name}}}" in address]
        if named:
            channel["parameters"] = {name: {"description": PARAMETERS[name]} for name in named}
