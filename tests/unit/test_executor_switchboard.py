"""Whom a server's words are brought to, decided without a server."""

import json
from contextlib import suppress
from typing import Any

import pytest

from toolbus_common.contracts import CallAdmitted, ProtocolFamily, ReplyMessage
from toolbus_executor.upstreams.base import News
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages as wire
from toolbus_executor.upstreams.mcp.dispatcher import MessageDispatcher
from toolbus_executor.upstreams.suspended_calls import binding_of, brought, owner_of

FORMS = '{"elicitation":{},"roots":{}}'
FORM = {"message": "m", "requestedSchema": {"type": "object"}}


class Nowhere:
    """A reply nobody listens to."""

    address = "r"

    async def send(self, _frame: ReplyMessage) -> None:
        """Say nothing."""


class Desk:
    """A switchboard and everything it did."""

    def __init__(self, *capabilities: str) -> None:
        self.answers: list[Any] = []
        self.said: list[tuple[str, Any]] = []
        self.changes = 0
        self.dropped: list[str] = []
        said = lambda m, p: self.said.append((m, json.loads(p)))  # noqa: E731
        news = News(self._change, said, _nothing, self.dropped.append)
        self.board = MessageDispatcher(news, lambda body: self.answers.append(json.loads(body)))
        self.callers = [Caller(call(capabilities=c), Nowhere()) for c in capabilities]
        self.board.callers |= dict(enumerate(self.callers))

    def take(self, **message: Any) -> None:
        """A message of the server."""
        self.board.take(wire.read(json.dumps({"jsonrpc": "2.0", **message}).encode()))

    def _change(self) -> None:
        self.changes += 1


async def _nothing(_call: CallAdmitted) -> None:
    """List nothing anew."""


def call(**more: Any) -> CallAdmitted:
    told: dict[str, Any] = {
        "call_id": "c",
        "reply_to": "r",
        "server": "s",
        "tool": "t",
        "customer": "d",
        "key": "k",
        "family": ProtocolFamily.MODERN,
        "deadline": 0.0,
        "traceparent": "",
    }
    return CallAdmitted(**told | more)


def test_a_question_on_a_shared_line_is_for_the_only_call_under_way() -> None:
    desk = Desk(FORMS)
    desk.take(id="7", method="elicitation/create", params=FORM)
    (question,) = desk.callers[0].questions.values()
    question.answer(b'"result":{"action":"decline"}')
    assert desk.answers == [{"jsonrpc": "2.0", "id": "7", "result": {"action": "decline"}}]


def test_a_question_that_names_a_task_is_for_who_waits_for_its_result() -> None:
    desk = Desk(FORMS, FORMS)
    waits = call(capabilities=FORMS, method="tasks/result", arguments=b'{"taskId":"2"}')
    desk.board.callers[9] = waiting = Caller(waits, Nowhere())
    named = {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": "2"}}}
    desk.take(id=1, method="elicitation/create", params=FORM | named)
    (question,) = waiting.questions.values()
    assert json.loads(question.params) == {**FORM, "_meta": {}}
    assert not any(each.questions for each in desk.callers)


def test_a_question_of_a_task_nobody_waits_for_reaches_nobody() -> None:
    desk = Desk(FORMS)
    named = {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": "2"}}}
    desk.take(id=1, method="elicitation/create", params=FORM | named)
    assert not desk.callers[0].questions
    assert desk.answers[0]["error"]["code"] == -32601


@pytest.mark.parametrize("callers", [(), (FORMS, FORMS)])
def test_a_question_nobody_or_several_could_be_meant_by_reaches_nobody(
    callers: tuple[str, ...],
) -> None:
    desk = Desk(*callers)
    desk.take(id=1, method="elicitation/create", params=FORM)
    desk.take(id=2, method="roots/list")
    desk.take(id=3, method="ping")
    assert desk.answers[0]["error"]["code"] == -32601
    assert [answer.get("result") for answer in desk.answers[1:]] == [{"roots": []}, {}]
    assert not any(caller.questions for caller in desk.callers)


def test_a_question_of_a_kind_the_caller_did_not_declare_is_refused_for_it() -> None:
    desk = Desk(FORMS)
    desk.take(id=1, method="sampling/createMessage", params={"messages": []})
    desk.take(id=2, method="elicitation/create", params={"mode": "url", "url": "https://a"})
    assert [answer["error"]["code"] for answer in desk.answers] == [-32601, -32601]


def test_a_stateless_server_asks_nothing_this_way() -> None:
    desk = Desk(FORMS)
    desk.board.may_ask = False
    desk.take(id=1, method="elicitation/create", params=FORM)
    assert (desk.answers, desk.callers[0].questions) == ([], {})


LOGGED = {"level": "error", "data": "late"}


class Hearing(Caller):
    """A caller that keeps what it is told of a server's log."""

    def __init__(self, key: str) -> None:
        super().__init__(call(key=key, capabilities=FORMS, log_level="debug"), Nowhere())
        self.heard = 0

    def logged(self, *_told: Any, **_more: Any) -> None:
        """Count it."""
        self.heard += 1


def speak(desk: Desk) -> None:
    """The server logs and asks without a name."""
    desk.take(method="notifications/message", params=LOGGED)
    desk.take(id=1, method="elicitation/create", params=FORM)


def ended(desk: Desk, number: int, key: str, error: type[Exception] | None = None) -> None:
    """A call from beginning to end; one that is given up ends with an error."""
    with suppress(TimeoutError), desk.board.call(number, Caller(call(key=key), Nowhere())):
        if error is not None:
            raise error


def test_the_calls_of_one_principal_hear_the_server_one_after_the_other() -> None:
    desk = Desk()
    for number in (1, 2, 3):
        caller = Hearing("k")
        with desk.board.call(number, caller):
            speak(desk)
            assert (caller.heard, len(caller.questions)) == (1, 1)
        assert desk.answers.pop()["result"] == {"action": "cancel"}, "the call ended before that"
    assert desk.dropped == []


@pytest.mark.parametrize("other", ["another", "a third"])
def test_where_another_principal_ever_called_what_names_no_call_is_dropped(other: str) -> None:
    desk, caller = Desk(), Hearing("k")
    ended(desk, 1, "k")
    ended(desk, 2, other)
    with desk.board.call(3, caller):
        speak(desk)
    assert (caller.heard, caller.questions) == (0, {})
    assert desk.dropped == ["log", "request"]
    assert "cannot be attributed" in desk.answers[0]["error"]["message"]


def test_after_a_call_that_was_given_up_nothing_is_attributed_until_its_answer() -> None:
    desk, caller = Desk(), Hearing("k")
    ended(desk, 1, "k", TimeoutError)
    with desk.board.call(2, caller):
        speak(desk)
        assert caller.heard == 0
        desk.take(id=1, result={})
        speak(desk)
        assert caller.heard == 1


def test_progress_of_a_call_that_has_ended_is_dropped() -> None:
    desk = Desk()
    ended(desk, 1, "k")
    with desk.board.call(2, caller := Caller(call(progress=True), Nowhere())):
        for token in (1, "2", 7):
            about = {"progressToken": token, "progress": 1}
            desk.take(method="notifications/progress", params=about)
    assert desk.dropped == ["progress"] * 3
    assert caller.questions == {}


def test_what_comes_on_a_stream_of_our_own_is_no_calls() -> None:
    desk, caller = Desk(), Hearing("k")
    with desk.board.call(1, caller):
        for told in (
            {"method": "notifications/message", "params": LOGGED},
            {"method": "elicitation/create", "id": 5, "params": FORM},
        ):
            text = json.dumps({"jsonrpc": "2.0", **told}).encode()
            desk.board.take_apart(wire.read(text))
    assert (caller.heard, caller.questions, desk.dropped) == (0, {}, ["log", "request"])


def test_news_goes_to_everyone_and_changes_of_lists_to_the_keeper_too() -> None:
    desk = Desk()
    desk.take(method="notifications/resources/updated", params={"uri": "a://b"})
    desk.take(method="notifications/elicitation/complete", params={"elicitationId": "1"})
    for name in ("tools", "prompts", "resources"):
        desk.take(method=f"notifications/{name}/list_changed")
    desk.take(method="notifications/unheard-of")
    told = [method.removeprefix("notifications/") for method, _ in desk.said]
    assert told[:2] == ["resources/updated", "elicitation/complete"]
    assert told[2:] == [f"{name}/list_changed" for name in ("tools", "prompts", "resources")]
    assert desk.changes == 3


def test_a_state_names_its_owner_and_no_other_text_does() -> None:
    assert owner_of("suspended.0123abcd.secret_-x") == "0123abcd"
    for strange in (
        "",
        "suspended",
        "suspended..x",
        "suspended.a>b.x",
        "other.a.b",
        "suspended.a.b.c",
    ):
        assert owner_of(strange) == ""


def test_what_a_call_brings_back_is_read_only_as_far_as_it_must_be() -> None:
    assert brought("") == ("", None)
    assert brought('{"requestState":"s"}') == ("s", None)
    state, answers = brought('{"inputResponses":{"a":{"n":1.50}}}')
    assert (state, bytes((answers or {})["a"])) == ("", b'{"n":1.50}')


@pytest.mark.parametrize(
    "other",
    [
        {"key": "x"},
        {"customer": "x"},
        {"tool": "x"},
        {"method": "prompts/get"},
        {"arguments": b"{} "},
    ],
)
def test_a_parked_call_is_bound_to_who_asked_what(other: dict[str, Any]) -> None:
    assert binding_of(call()) == binding_of(call(call_id="d", extra="{}"))
    assert binding_of(call()) != binding_of(call(**other))
