"""State transitions of an approval, and elicitation responses, without I/O."""

import json
from typing import Any

import pytest

from harness.builders.approvals import pending_approval
from harness.builders.calls import requested_call
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.config import Configuration
from toolbus_common.contracts import ApprovalRequested, CallRequested
from toolbus_policy.approvals import model as approvals
from toolbus_policy.approvals.elicitation import (
    STATE_PREFIX,
    ApprovalResponse,
    approval_elicitation,
    parse_response,
    supports_url_elicitation,
)
from toolbus_policy.approvals.model import (
    MAX_ARGUMENT_BYTES,
    Approval,
    Cause,
    State,
    event_of,
    state_of,
)

ARGUMENTS = b'{"page":"canary"}'


def call(extra: str = "", arguments: bytes = ARGUMENTS) -> CallRequested:
    return requested_call(call_id="c1", tool="burn", extra=extra, arguments=arguments)


def every_state() -> dict[State, Approval]:
    pending = pending_approval(call())
    granted = approvals.granted(pending, "key:boss", "Fine.", 300.0)
    return {
        State.PENDING: pending,
        State.GRANTED: granted,
        State.REJECTED: approvals.rejected(pending, "key:boss", "No.", 200.0),
        State.USED: approvals.used(granted, 400.0, "c1"),
        State.EXPIRED: approvals.expired(pending),
        State.WITHDRAWN: approvals.withdrawn(pending),
    }


def test_arguments_are_stored_only_while_the_approval_is_open() -> None:
    for state, approval in every_state().items():
        assert approval.state is state
        assert ("canary" in approval.arguments) == (state in (State.PENDING, State.GRANTED))


@pytest.mark.parametrize("state", State)
def test_each_state_has_its_own_event_and_id(state: State) -> None:
    event = event_of(every_state()[state], 150.0)
    recorded_arguments = "requested" if state is State.PENDING else state.value
    assert event.subject == f"tb.event.approval.{recorded_arguments}.default"
    assert event.id.endswith(f".{state.value}")
    assert (event.call_id, event.key, event.binding) == ("c1", "bot", "binding")
    assert b"canary" not in event.encode()


def test_the_requested_event_holds_what_rules_read() -> None:
    # A replay of rules needs these fields for calls that waited for approval.
    declared = Configuration.model_validate(
        {
            "teams": {"ops": {"environment": "prod"}},
            "users": {"ann": {}},
            "keys": {"bot": {"team": "ops", "user": "ann"}},
        }
    )
    principal = ConfigSnapshot.of(declared).principal("bot")
    made = approvals.new_approval(call(), principal, Cause("rule:big"), "binding", (100.0, 200.0))
    event = event_of(made, 150.0, read=approvals.rule_input(call(), principal, Cause(charge=7)))
    assert isinstance(event, ApprovalRequested)
    assert (event.rule, event.cause) == ("big", "rule:big")
    assert (event.team, event.user, event.environment) == ("ops", "ann", "prod")
    assert (event.family, event.charge, event.arguments) == ("modern", 7, "")
    assert "rule" not in event_of(pending_approval(call()), 150.0).model_dump(exclude_defaults=True)


def test_arguments_are_an_event_only_where_they_are_recorded_in_full() -> None:
    declared = Configuration.model_validate({"keys": {"bot": {"content": "full"}}})
    principal = ConfigSnapshot.of(declared).principal("bot")
    read = approvals.rule_input(call(), principal, Cause())
    assert b"canary" in event_of(pending_approval(call()), 150.0, read=read).encode()
    for state, approval in every_state().items():
        if state is not State.PENDING:
            assert b"canary" not in event_of(approval, 150.0, read=read).encode()


def test_ids_cannot_be_guessed() -> None:
    assert len({pending_approval(call()).id for _ in range(100)}) == 100
    assert all(len(pending_approval(call()).id) == 32 for _ in range(10))


@pytest.mark.parametrize(("now", "is_current"), [(150.0, True), (200.0, False), (1e9, False)])
def test_an_approval_is_current_until_it_ends(now: float, is_current: bool) -> None:  # noqa: FBT001
    assert pending_approval(call()).is_current(now) is is_current
    assert pending_approval(call()).applies_to("", now) is is_current


def test_a_used_approval_accepts_each_state_once() -> None:
    used = every_state()[State.USED]
    assert not used.applies_to("", 350.0)
    assert used.applies_to("one", 350.0)
    on = approvals.continued(used, "one")
    assert not on.applies_to("one", 350.0)
    assert on.applies_to("two", 350.0)
    assert not on.applies_to("two", 400.0), "no longer current after its end"


def test_an_approved_call_continues_a_limited_number_of_times() -> None:
    used = every_state()[State.USED]
    for number in range(approvals.MAX_ROUNDS):
        assert used.applies_to(str(number), 350.0)
        used = approvals.continued(used, str(number))
    assert not used.applies_to("one more", 350.0)


def test_arguments_are_cut_to_the_requested_length_and_marked() -> None:
    assert (
        state_of(pending_approval(call()), 4).arguments,
        state_of(pending_approval(call()), 4).cut,
    ) == ('{"pa', True)
    whole = state_of(pending_approval(call()), MAX_ARGUMENT_BYTES)
    assert (whole.arguments, whole.cut) == (ARGUMENTS.decode(), False)


# -- the response of a caller ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "action"),
    [
        ({"approval": {"action": "accept"}}, "accept"),
        ({"approval": {"action": "decline"}}, "decline"),
        ({"approval": {"action": 7}}, "7"),
        ({"approval": []}, ""),
        ({"approval": None}, ""),
        ({"other": {"action": "accept"}}, ""),
        ({}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_a_response_of_any_form_is_parsed(answers: Any, action: str) -> None:
    extra = json.dumps({"requestState": f"{STATE_PREFIX}abc", "inputResponses": answers})
    assert parse_response(extra) == ApprovalResponse("abc", action)


@pytest.mark.parametrize("state", ["park.x.y", "", "TOOLBUS.APPROVAL.abc", " toolbus.approval.x"])
def test_a_servers_own_state_is_left_to_it(state: str) -> None:
    extra = json.dumps({"requestState": state, "inputResponses": {}})
    assert parse_response(extra) == ApprovalResponse(state=state)
    assert parse_response(extra).without_approval(call(extra)).extra == extra


def test_a_server_sees_nothing_of_the_elicitation() -> None:
    extra = {
        "_meta": {"a": 1},
        "requestState": f"{STATE_PREFIX}abc",
        "inputResponses": {"approval": {}},
    }
    continued = parse_response(json.dumps(extra)).without_approval(call(json.dumps(extra)))
    assert json.loads(continued.extra) == {"_meta": {"a": 1}}
    assert continued.arguments == ARGUMENTS


@pytest.mark.parametrize(
    ("capabilities", "can"),
    [
        ('{"elicitation":{"url":{}}}', True),
        ('{"elicitation":{"form":{},"url":{}}}', True),
        ('{"elicitation":{"form":{}}}', False),
        ('{"elicitation":{}}', False),
        ('{"elicitation":null}', False),
        ('{"url":{}}', False),
        ("{}", False),
        ("[]", False),
    ],
)
def test_only_clients_with_url_elicitation_get_a_page(capabilities: str, can: bool) -> None:  # noqa: FBT001
    assert supports_url_elicitation(capabilities) is can


def test_the_elicitation_does_not_show_the_arguments() -> None:
    elicitation = approval_elicitation(
        pending_approval(call()), "https://gateway.example/approvals/x"
    )
    assert b"canary" not in elicitation.body
    assert json.loads(elicitation.body)["inputRequests"]["approval"]["params"]["mode"] == "url"
