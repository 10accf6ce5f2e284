"""Validation of events against the OCSF schema."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SCHEMA = json.loads(Path(__file__).with_name("ocsf_schema.json").read_text())
CLASSES = {each["class_uid"]: each for each in SCHEMA["classes"].values()}
_TEXTS = ("string_t", "username_t", "resource_uid_t", "uuid_t", "hostname_t", "url_t")
_NUMBERS = ("integer_t", "long_t", "timestamp_t", "port_t")
_FREE = ("object", "json_t")


def faults(event: Mapping[str, Any]) -> list[str]:
    """Return the errors of an event; empty if it is valid."""
    known = CLASSES.get(event.get("class_uid", -1))
    if known is None:
        return [f"there is no class {event.get('class_uid')}"]
    found = list(_of(event, known, ""))
    if event["category_uid"] != known["category_uid"]:
        found.append("category_uid is another class's")
    if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
        found.append("type_uid does not fit class and activity")
    for field in ("status", "severity"):
        captions = known["attributes"][f"{field}_id"]["enum"]
        number = event.get(f"{field}_id")
        if number != 99 and field in event and event[field] != captions.get(str(number)):
            found.append(f"{field} is not the caption of {number}")
    return found


def _of(given: Mapping[str, Any], known: Mapping[str, Any], place: str) -> Iterator[str]:
    attributes = known["attributes"]
    for name, attribute in attributes.items():
        if attribute.get("required") and name not in given:
            yield f"{place}{name} is required"
    one_of = known["constraints"].get("at_least_one", [])
    if one_of and not set(one_of) & set(given):
        yield f"{place}: one of {one_of} is required"
    for name, value in given.items():
        if name not in attributes:
            yield f"{place}{name} is unknown"
        else:
            yield from _value(value, attributes[name], f"{place}{name}")


def _value(value: Any, attribute: Mapping[str, Any], place: str) -> Iterator[str]:
    if attribute.get("array"):
        if not isinstance(value, list):
            yield f"{place} must be a list"
            return
        single = {key: each for key, each in attribute.items() if key != "array"}
        for each in value:
            yield from _value(each, single, place)
        return
    enumerated = attribute.get("enum")
    if enumerated and str(value) not in enumerated:
        yield f"{place} is {value!r}, none of {list(enumerated)}"
    yield from _typed(value, attribute["type"], place)


def _typed(value: Any, kind: str, place: str) -> Iterator[str]:
    if kind in _TEXTS and not isinstance(value, str):
        yield f"{place} must be text"
    elif kind in _NUMBERS and not (isinstance(value, int) and not isinstance(value, bool)):
        yield f"{place} must be a whole number"
    elif kind in SCHEMA["objects"] and kind not in _FREE:
        yield from _of(value, SCHEMA["objects"][kind], f"{place}.")
    elif kind not in (*_TEXTS, *_NUMBERS, *_FREE):
        yield f"{place} is of the type {kind}, which is not looked at"
