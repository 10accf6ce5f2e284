"""The AsyncAPI document describes every event and query, and refers to nothing that is missing."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from harness.samples.page_samples import ROOT
from reference.events import events
from reference.pages import DOCUMENT
from toolbus_common.contracts.queries.registry import REPLIES


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / DOCUMENT).read_text())
    return loaded


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def resolved(reference: str) -> Any:
    part: Any = document()
    for name in reference.removeprefix("#/").split("/"):
        part = part[name]
    return part


def test_the_document_is_of_version_three() -> None:
    assert document()["asyncapi"] == "3.0.0"


def test_every_reference_leads_to_something() -> None:
    found = set(references(document()))
    assert found
    assert all(resolved(each) for each in found)


def test_every_query_is_received_and_has_its_reply() -> None:
    for query, reply in REPLIES.items():
        operation = document()["operations"][query.__name__]
        assert operation["action"] == "receive"
        assert resolved(operation["channel"]["$ref"])["address"] == query.SUBJECT
        (message,) = operation["reply"]["messages"]
        payload = resolved(resolved(message["$ref"])["$ref"])["payload"]
        assert resolved(payload["$ref"])["title"] == reply.__name__


def test_every_event_is_sent_as_lines_on_the_subject_of_its_customer() -> None:
    for event in events():
        operation = document()["operations"][event.NAME]
        assert operation["action"] == "send"
        channel = resolved(operation["channel"]["$ref"])
        assert channel["address"] == f"tb.event.{event.NAME}.{{customer}}"
        assert set(channel["parameters"]) == {"customer"}
        (message,) = channel["messages"].values()
        assert resolved(message["$ref"])["contentType"] == "application/x-ndjson"
