"""Consent for a server: the link a caller receives, and the answer that comes back."""

import msgspec
import pytest

from toolbus_common.contracts import (
    CallAdmitted,
    ProtocolFamily,
)
from toolbus_executor.credentials import consent
from toolbus_executor.credentials.oauth_token import ConsentRequiredError

LINK = "https://gateway.test/oauth/connect/abc"


def call(extra: str = "", capabilities: str = "{}", method: str = "tools/call") -> CallAdmitted:
    return CallAdmitted(
        call_id="c", reply_to="r", server="docs", tool="t", customer="s", key="k",
        family=ProtocolFamily.MODERN,
        deadline=0.0, traceparent="", extra=extra, capabilities=capabilities, method=method,
    )  # fmt: skip


def test_who_can_open_pages_is_asked_to_and_others_are_told_the_link() -> None:
    error = ConsentRequiredError("Nobody has.", link=LINK)
    request = msgspec.json.decode(
        consent.consent_required(call("", '{"elicitation":{"url":{}}}'), error, "docs")
    )
    assert request["inputRequests"][consent.QUESTION]["params"]["url"] == LINK
    message = msgspec.json.decode(consent.consent_required(call(), error, "docs"))
    assert message["isError"] is True
    assert LINK in message["content"][0]["text"]
    with pytest.raises(ConsentRequiredError, match=LINK):
        consent.consent_required(call(method="resources/read"), error, "docs")


def test_our_answer_is_taken_out_of_a_call_and_the_servers_stay() -> None:
    brought = {consent.QUESTION: {"action": "accept"}, "own": {"action": "accept"}}
    extra = msgspec.json.encode({"inputResponses": brought, "requestState": "s"}).decode()
    found = consent.take_answer(call(extra))
    assert found.action == "accept"
    kept = {"inputResponses": {"own": {"action": "accept"}}, "requestState": "s"}
    assert msgspec.json.decode(found.call.extra) == kept
    ours = msgspec.json.encode({"inputResponses": {consent.QUESTION: {"action": "no"}}}).decode()
    assert (consent.take_answer(call(ours)).action, consent.take_answer(call(ours)).call.extra) == (
        "cancel", "",
    )  # fmt: skip
    assert consent.take_answer(call("{}")).action == ""
