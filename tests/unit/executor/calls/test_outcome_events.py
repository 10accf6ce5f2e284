"""The event of a completed call: complete, valid, and with text only where it is recorded."""

import json
from typing import Any

import pytest

from harness.services.call_runner import admitted
from toolbus_common.contracts import CallCompleted, CallResult, FinalReply, InputRequired
from toolbus_common.contracts.events.encoded import EncodedCompletion
from toolbus_executor.calls.outcome_events import CompletionEvents
from toolbus_executor.mcp_messages.result_mapping import CallOutcome

BODY = b'{"content":[{"type":"text","text":"h\xc3\xa9"}]}'


def built(
    reply: FinalReply | None = None, misfit: str = "", guards: str = "", **more: Any
) -> EncodedCompletion:
    """Return the event of a call that took a quarter of a second."""
    outcome = CallOutcome(reply or CallResult(BODY), is_error=False, kept=10, left_out=5)
    return CompletionEvents().build(admitted("echo", **more), outcome, 0.25, misfit, guards)


def test_an_event_has_every_field_of_its_contract_once() -> None:
    made = built(guards="[]").encode()
    members = json.loads(made, object_pairs_hook=lambda pairs: pairs)
    assert sorted(name for name, _ in members) == sorted(CallCompleted.model_fields)


def test_an_event_contains_checks_only_if_there_are_any() -> None:
    assert b'"guards"' not in built().encode()
    assert built(guards="[1]").decoded().model_dump()["guards"] == "[1]"


def test_an_event_describes_its_call_and_result() -> None:
    found = built(misfit="text (type)", reserved=True, parent_id="p").decoded()
    assert isinstance(found, CallCompleted)
    assert found.subject == built().subject == "tb.event.call.completed.d"
    assert (found.id, found.call_id, found.parent_id) == ("c1.completed", "c1", "p")
    assert (found.trace_id, found.key, found.server, found.tool) == ("a" * 32, "k", "s", "echo")
    assert (found.charge, found.reserved, found.latency_us) == (5, True, 250_000)
    sizes = found.sent_bytes, found.result_bytes, found.whole_bytes
    assert sizes == (len(BODY), len(BODY) + 10, len(BODY) + 15)
    assert (found.result_type, found.misfit, found.is_error) == ("complete", "text (type)", False)


def test_requested_input_is_free() -> None:
    found = built(InputRequired(b"{}")).decoded()
    assert isinstance(found, CallCompleted)
    assert (found.result_type, found.charge) == ("input_required", 0)


@pytest.mark.parametrize("content", ["digest", "full"])
def test_text_and_user_are_included_only_if_the_text_is_recorded(content: str) -> None:
    event = built(result_content=content, user="ann")
    found = event.decoded()
    assert isinstance(found, CallCompleted)
    recorded = content == "full"
    assert event.impersonal is found.impersonal is not recorded
    assert (found.result, found.user) == ((BODY.decode(), "ann") if recorded else ("", ""))


def test_names_are_escaped_and_calls_of_other_keys_have_heads_of_their_own() -> None:
    events, name = CompletionEvents(), 'a"\\\n'
    outcome = CallOutcome(CallResult(BODY), is_error=True)
    for key in ("k", name):
        found = events.build(admitted(name, key=key), outcome, 0).decoded()
        assert isinstance(found, CallCompleted)
        assert (found.tool, found.key, found.is_error) == (name, key, True)
