"""Dispatch of a server's messages to callers, without a server."""

import json
from contextlib import suppress
from typing import Any

import pytest

from harness.builders.calls import admitted_call
from toolbus_common.contracts import CallAdmitted, ReplyMessage
from toolbus_executor.upstreams.base import UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages as wire
from toolbus_executor.upstreams.mcp.dispatcher import MessageDispatcher
from toolbus_executor.upstreams.suspended_calls import answers_in, binding_of, owner_of

FORMS = '{"elicitation":{},"roots":{}}'
FORM = {"message": "m", "requestedSchema": {"type": "object"}}


class NoReplies:
    """The context of a call that discards everything."""

    async def send(self, _message: ReplyMessage) -> None:
        """Discard the message."""


class Recorder:
    """A dispatcher and a record of its actions."""

    def __init__(self, *capabilities: str) -> None:
        self.answers: list[Any] = []
        self.notifications: list[tuple[str, Any]] = []
        self.changes = 0
        self.dropped: list[str] = []
        notify = lambda m, p: self.notifications.append((m, json.loads(p)))  # noqa: E731
        news = UpstreamCallbacks(self._change, notify, _nothing, self.dropped.append)
        self.board = MessageDispatcher(news, lambda body: self.answers.append(json.loads(body)))
        self.callers = [Caller(call(capabilities=c), NoReplies()) for c in capabilities]
        self.board.callers |= dict(enumerate(self.callers))

    def take(self, **message: Any) -> None:
        """Dispatch a message of the server."""
        self.board.take(wire.read(json.dumps({"jsonrpc": "2.0", **message}).encode()))

    def _change(self) -> None:
        self.changes += 1


async def _nothing(_call: CallAdmitted) -> None:
    """Do not list again."""


def call(**more: Any) -> CallAdmitted:
    return admitted_call(**{"server": "s", **more})


def test_a_request_on_a_shared_connection_belongs_to_the_only_call_in_progress() -> None:
    recorder = Recorder(FORMS)
    recorder.take(id="7", method="elicitation/create", params=FORM)
    (question,) = recorder.callers[0].questions.values()
    question.answer(b'"result":{"action":"decline"}')
    assert recorder.answers == [{"jsonrpc": "2.0", "id": "7", "result": {"action": "decline"}}]


def test_a_request_that_names_a_task_belongs_to_the_call_that_waits_for_its_result() -> None:
    recorder = Recorder(FORMS, FORMS)
    waits = call(capabilities=FORMS, method="tasks/result", arguments=b'{"taskId":"2"}')
    recorder.board.callers[9] = waiting = Caller(waits, NoReplies())
    named = {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": "2"}}}
    recorder.take(id=1, method="elicitation/create", params=FORM | named)
    (question,) = waiting.questions.values()
    assert json.loads(question.params) == {**FORM, "_meta": {}}
    assert not any(each.questions for each in recorder.callers)


def test_a_request_of_a_task_without_a_waiting_call_is_rejected() -> None:
    recorder = Recorder(FORMS)
    named = {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": "2"}}}
    recorder.take(id=1, method="elicitation/create", params=FORM | named)
    assert not recorder.callers[0].questions
    assert recorder.answers[0]["error"]["code"] == -32601


@pytest.mark.parametrize("callers", [(), (FORMS, FORMS)])
def test_a_request_without_exactly_one_possible_call_is_rejected(
    callers: tuple[str, ...],
) -> None:
    recorder = Recorder(*callers)
    recorder.take(id=1, method="elicitation/create", params=FORM)
    recorder.take(id=2, method="roots/list")
    recorder.take(id=3, method="ping")
    assert recorder.answers[0]["error"]["code"] == -32601
    assert [answer.get("result") for answer in recorder.answers[1:]] == [{"roots": []}, {}]
    assert not any(caller.questions for caller in recorder.callers)


def test_a_request_that_the_client_does_not_support_is_rejected() -> None:
    recorder = Recorder(FORMS)
    recorder.take(id=1, method="sampling/createMessage", params={"messages": []})
    recorder.take(id=2, method="elicitation/create", params={"mode": "url", "url": "https://a"})
    assert [answer["error"]["code"] for answer in recorder.answers] == [-32601, -32601]


def test_a_request_of_a_stateless_server_is_dropped() -> None:
    recorder = Recorder(FORMS)
    recorder.board.may_ask = False
    recorder.take(id=1, method="elicitation/create", params=FORM)
    assert (recorder.answers, recorder.callers[0].questions) == ([], {})


LOGGED = {"level": "error", "data": "late"}


class LogCounter(Caller):
    """A caller that counts log messages of the server."""

    def __init__(self, key: str) -> None:
        super().__init__(call(key=key, capabilities=FORMS, log_level="debug"), NoReplies())
        self.logged_count = 0

    def logged(self, *_entry: Any, **_more: Any) -> None:
        """Count it."""
        self.logged_count += 1


def speak(recorder: Recorder) -> None:
    """Send a log message and a request without a call's name."""
    recorder.take(method="notifications/message", params=LOGGED)
    recorder.take(id=1, method="elicitation/create", params=FORM)


def ended(recorder: Recorder, number: int, key: str, error: type[Exception] | None = None) -> None:
    """Run a call from beginning to end; an abandoned one ends with an error."""
    with suppress(TimeoutError), recorder.board.call(number, Caller(call(key=key), NoReplies())):
        if error is not None:
            raise error


def test_successive_calls_of_one_principal_receive_unnamed_messages() -> None:
    recorder = Recorder()
    for number in (1, 2, 3):
        caller = LogCounter("k")
        with recorder.board.call(number, caller):
            speak(recorder)
            assert (caller.logged_count, len(caller.questions)) == (1, 1)
        assert recorder.answers.pop()["result"] == {"action": "cancel"}, "the call ended earlier"
    assert recorder.dropped == []


@pytest.mark.parametrize("other", ["another", "a third"])
def test_after_a_call_of_another_principal_unnamed_messages_are_dropped(other: str) -> None:
    recorder, caller = Recorder(), LogCounter("k")
    ended(recorder, 1, "k")
    ended(recorder, 2, other)
    with recorder.board.call(3, caller):
        speak(recorder)
    assert (caller.logged_count, caller.questions) == (0, {})
    assert recorder.dropped == ["log", "request"]
    assert "cannot be attributed" in recorder.answers[0]["error"]["message"]


def test_after_an_abandoned_call_nothing_is_attributed_until_its_response() -> None:
    recorder, caller = Recorder(), LogCounter("k")
    ended(recorder, 1, "k", TimeoutError)
    with recorder.board.call(2, caller):
        speak(recorder)
        assert caller.logged_count == 0
        recorder.take(id=1, result={})
        speak(recorder)
        assert caller.logged_count == 1


def test_progress_of_a_call_that_has_ended_is_dropped() -> None:
    recorder = Recorder()
    ended(recorder, 1, "k")
    with recorder.board.call(2, caller := Caller(call(progress=True), NoReplies())):
        for token in (1, "2", 7):
            about = {"progressToken": token, "progress": 1}
            recorder.take(method="notifications/progress", params=about)
    assert recorder.dropped == ["progress"] * 3
    assert caller.questions == {}


def test_messages_on_a_stream_of_toolbus_belong_to_no_call() -> None:
    recorder, caller = Recorder(), LogCounter("k")
    with recorder.board.call(1, caller):
        for message in (
            {"method": "notifications/message", "params": LOGGED},
            {"method": "elicitation/create", "id": 5, "params": FORM},
        ):
            text = json.dumps({"jsonrpc": "2.0", **message}).encode()
            recorder.board.take_apart(wire.read(text))
    assert (caller.logged_count, caller.questions, recorder.dropped) == (0, {}, ["log", "request"])


def test_notifications_go_to_everyone_and_list_changes_to_the_supervisor_too() -> None:
    recorder = Recorder()
    recorder.take(method="notifications/resources/updated", params={"uri": "a://b"})
    recorder.take(method="notifications/elicitation/complete", params={"elicitationId": "1"})
    for name in ("tools", "prompts", "resources"):
        recorder.take(method=f"notifications/{name}/list_changed")
    recorder.take(method="notifications/unheard-of")
    methods = [method.removeprefix("notifications/") for method, _ in recorder.notifications]
    assert methods[:2] == ["resources/updated", "elicitation/complete"]
    assert methods[2:] == [f"{name}/list_changed" for name in ("tools", "prompts", "resources")]
    assert recorder.changes == 3


def test_only_a_valid_state_names_its_owner() -> None:
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


def test_answers_in_a_call_stay_raw() -> None:
    assert answers_in("") == ("", None)
    assert answers_in('{"requestState":"s"}') == ("s", None)
    state, answers = answers_in('{"inputResponses":{"a":{"n":1.50}}}')
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
def test_a_suspended_call_is_bound_to_its_principal_and_request(other: dict[str, Any]) -> None:
    assert binding_of(call()) == binding_of(call(call_id="d", extra="{}"))
    assert binding_of(call()) != binding_of(call(**other))
