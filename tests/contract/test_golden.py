"""Every message as it is on the wire: a changed field shows as a difference in review.

After an intended change, `TOOLBUS_WRITE_GOLDEN=1 pytest tests/contract` rewrites the files.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from toolbus_common import contracts
from toolbus_common.contracts import EVENTS, Event, Message, Query
from toolbus_common.contracts.base import trusted

GOLDEN = Path(__file__).parent / "golden"
SAMPLES: dict[Any, Any] = {str: "text", int: 7, float: 1.5, bool: True, bytes: b'{"x": 1}', Any: 7}
SAMPLES |= {int | None: 7, bool | None: True, tuple[str, ...] | None: ("text",)}
ABSTRACT = {
    Message, Event, Query, contracts.CallEvent, contracts.ApprovalEvent,
    contracts.DefinitionEvent,
    contracts.RunEvent, contracts.RunEnded, contracts.ServerCommandEvent,
    contracts.HoldEvent,
}  # fmt: skip
TRUSTED = (
    contracts.CallRequested, contracts.CallAdmitted, contracts.CallAllowed, contracts.CallCompleted,
)  # fmt: skip
MESSAGES = sorted(
    (
        cls
        for cls in vars(contracts).values()
        if isinstance(cls, type) and issubclass(cls, Message) and cls not in ABSTRACT
    ),
    key=lambda cls: cls.__name__,
)


def sample(annotation: Any) -> Any:
    """Return a fixed value of a field's type."""
    if annotation in SAMPLES:
        return SAMPLES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return filled(annotation)
    if hasattr(annotation, "__members__"):
        return next(iter(annotation))
    inner = [arg for arg in getattr(annotation, "__args__", ()) if arg is not Ellipsis]
    origin = getattr(annotation, "__origin__", None)
    if origin is Literal:
        return inner[0]
    if origin is dict:
        return {"text": sample(inner[1]) if inner[1] is not Any else 7}
    if origin is tuple:
        return (sample(inner[0]) if inner[0] is not Any else 7,)
    raise NotImplementedError(f"no sample of {annotation!r}: give the test one")


def filled(cls: type[BaseModel]) -> BaseModel:
    """Return a message with every field set."""
    return cls(**{name: sample(field.annotation) for name, field in cls.model_fields.items()})


SAMPLES[contracts.OutcomeClaim | None] = filled(contracts.OutcomeClaim)
SAMPLES[contracts.Identified | None] = filled(contracts.Identified)
SAMPLES[contracts.Handshake | None] = filled(contracts.Handshake)
SAMPLES[contracts.ProtocolFamily | None] = contracts.ProtocolFamily.LEGACY
SAMPLES[tuple[str, ...] | None] = ("text",)
SAMPLES[dict[str, Any] | None] = {"text": 7}


def subject_of(cls: type[Message]) -> str:
    if issubclass(cls, Event):
        return f"tb.event.{cls.NAME}.<customer>"
    return str(getattr(cls, "SUBJECT", ""))


def shape(cls: type[Message]) -> dict[str, Any]:
    head, _, body = filled(cls).encode().partition(b"\n")  # type: ignore[attr-defined]
    required = [name for name, field in cls.model_fields.items() if field.is_required()]
    parsed: dict[str, Any] = {"subject": subject_of(cls), "message": json.loads(head)}
    return parsed | ({"body": body.decode()} if cls.BODY else {}) | {"required": required}


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_a_message_is_encoded_as_in_its_golden_file(cls: type[Message]) -> None:
    path = GOLDEN / f"{cls.__name__}.json"
    written = json.dumps(shape(cls), indent=2) + "\n"
    if os.environ.get("TOOLBUS_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(written)
    assert written == path.read_text()


def test_every_golden_file_belongs_to_a_message() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == {cls.__name__ for cls in MESSAGES}


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_a_message_round_trips(cls: type[Message]) -> None:
    sent = filled(cls)
    assert isinstance(sent, Message)
    assert cls.decode(sent.encode()) == sent


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_a_field_of_a_newer_version_is_ignored(cls: type[Message]) -> None:
    sent = filled(cls)
    assert isinstance(sent, Message)
    newer = sent.encode().replace(b"{", b'{"from_the_future":1,' if cls.model_fields else b"{", 1)
    assert cls.decode(newer) == sent


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_fields_with_defaults_may_be_missing(cls: type[Message]) -> None:
    needed = {
        name: sample(field.annotation)
        for name, field in cls.model_fields.items()
        if field.default is PydanticUndefined and field.default_factory is None
    }
    least = cls(**needed)
    assert cls.decode(least.encode()) == least


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_a_message_is_encoded_as_by_its_model(cls: type[Message]) -> None:
    sent = filled(cls)
    assert isinstance(sent, Message)
    head = sent.encode().partition(b"\n")[0]
    assert head == cls.__pydantic_serializer__.to_json(sent)


@pytest.mark.parametrize("cls", TRUSTED, ids=lambda cls: cls.__name__)
def test_a_message_built_without_validation_equals_a_validated_one(cls: type[Message]) -> None:
    values = {name: sample(field.annotation) for name, field in cls.model_fields.items()}
    needed = {name: values[name] for name, field in cls.model_fields.items() if field.is_required()}
    for fields in (values, dict(reversed(values.items())), needed):
        made, seen = trusted(cls)(**fields), cls(**fields)
        assert made == seen
        assert made.encode() == seen.encode()
        assert made.model_copy(update={"call_id": "other"}) == seen.model_copy(
            update={"call_id": "other"}
        )


def test_every_event_is_registered_under_its_name() -> None:
    events = [cls for cls in MESSAGES if issubclass(cls, Event)]
    assert {cls.NAME: cls for cls in events} == EVENTS


def test_the_body_of_a_call_is_unchanged() -> None:
    odd = b'{"a" : 1.10, "big": 123456789012345678901234567890, "u":"\\u00e9", "n":"x\\ny"}'
    call = filled(contracts.CallRequested).model_copy(update={"arguments": odd})
    assert contracts.CallRequested.decode(call.encode()).arguments == odd  # type: ignore[attr-defined]


def test_the_repr_of_a_call_hides_key_digest_and_arguments() -> None:
    call = filled(contracts.CallRequested).model_copy(
        update={"key_digest": "canary-proof", "arguments": b"canary-arguments"}
    )
    assert "canary" not in repr(call)
