"""The call transport has the same behaviour on the bus and within one process."""

import asyncio
import gc
import weakref

import pytest

from harness.engines.bus_reset import provisioned
from harness.engines.nats_server import NatsServer
from harness.services.call_chain import Behaviour, Chain, admitted, chain, running
from harness.waits import PATIENCE, until, until_async
from toolbus_common.contracts import CallAdmitted, CallError, CallResult, Progress, ReplyMessage
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import (
    BusDownError,
    ExecutorDownError,
    OutcomeUnknownError,
    PolicyDownError,
    ToolbusError,
    UnavailableError,
    UpstreamDeadError,
)
from toolbus_common.messaging import pending_replies
from toolbus_common.settings import Settings

both = pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])


async def echo(call: CallAdmitted, _context: CallContext) -> Reply:
    return CallResult(call.arguments)


@both
async def test_a_call_is_answered_with_the_bytes_the_executor_sent(
    settings: Settings, *, fused: bool
) -> None:
    call_path = chain(settings, echo, fused=fused)
    odd = b'{"n": 1.10, "big": 123456789012345678901234567890, "u": "\\u00e9\xc3\xa9"}'
    async with running(call_path.executor, call_path.policy, call_path.ingress):
        assert await call_path.request(arguments=odd) == odd
        many = [b"%d" % n for n in range(200)]
        assert await asyncio.gather(*(call_path.request(arguments=n) for n in many)) == many
    assert call_path.ingress.calls.in_flight == 0


@both
async def test_progress_messages_arrive_in_order_before_the_result(
    settings: Settings, *, fused: bool
) -> None:
    async def slow(_call: CallAdmitted, context: CallContext) -> Reply:
        for n in range(5):
            await context.send(Progress(b"%d" % n))
        return CallResult(b"done")

    call_path, result = chain(settings, slow, fused=fused), list[bytes]()
    async with running(call_path.executor, call_path.policy, call_path.ingress):
        assert await call_path.request(result.append) == b"done"
    assert result == [b"0", b"1", b"2", b"3", b"4"]


@both
async def test_a_failure_arrives_as_the_original_error(settings: Settings, *, fused: bool) -> None:
    async def fail(_call: CallAdmitted, _context: CallContext) -> Reply:
        return CallError(UpstreamDeadError("echo exited with 1", server="echo"))

    call_path = chain(settings, fail, fused=fused)
    async with running(call_path.executor, call_path.policy, call_path.ingress):
        with pytest.raises(UpstreamDeadError, match="exited with 1") as caught:
            await call_path.request()
    assert caught.value.data == {"server": "echo"}


@both
async def test_a_failed_call_leaves_nothing_for_the_collector(
    settings: Settings, *, fused: bool
) -> None:
    async def fail(_call: CallAdmitted, _context: CallContext) -> Reply:
        return CallError(UpstreamDeadError("gone"))

    call_path, alive = chain(settings, fail, fused=fused), list[weakref.ref[ToolbusError]]()
    gc.disable()
    try:
        async with running(call_path.executor, call_path.policy, call_path.ingress):
            try:
                await call_path.request()
            except UpstreamDeadError as error:
                alive.append(weakref.ref(error))
            await asyncio.sleep(0)
            assert alive[0]() is None
    finally:
        gc.enable()


@both
async def test_messages_after_the_result_are_dropped(settings: Settings, *, fused: bool) -> None:
    late: list[asyncio.Task[None]] = []

    async def babble(call: CallAdmitted, context: CallContext) -> Reply:
        late.append(asyncio.create_task(go_on(context)))
        return CallResult(call.arguments)

    async def go_on(context: CallContext) -> None:
        await answered.wait()
        for message in (Progress(b"late"), CallResult(b"second"), CallError(gone)):
            await context.send(message)

    answered, gone = asyncio.Event(), UpstreamDeadError("third")
    call_path, result = chain(settings, babble, fused=fused), list[bytes]()
    async with running(call_path.executor, call_path.policy, call_path.ingress):
        assert await call_path.request(result.append, arguments=b"1") == b"1"
        answered.set()
        await asyncio.wait(late)
        assert await call_path.request(result.append, arguments=b"2") == b"2"
    assert result == []


@both
async def test_without_an_executor_policy_gets_an_error_at_once(
    settings: Settings, *, fused: bool
) -> None:
    call_path = chain(settings, echo, fused=fused)
    async with running(call_path.policy, call_path.ingress):
        with pytest.raises(ExecutorDownError):
            await call_path.request(seconds=3600)


@both
async def test_without_a_policy_the_caller_gets_an_error_at_once(
    settings: Settings, *, fused: bool
) -> None:
    call_path = chain(settings, echo, fused=fused)
    async with running(call_path.executor, call_path.ingress):
        with pytest.raises(PolicyDownError):
            await call_path.request(seconds=3600)
    assert call_path.admitted == []


@both
async def test_an_unanswered_call_ends_by_its_deadline(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, *, fused: bool
) -> None:
    monkeypatch.setattr(pending_replies, "HANDLER_GRACE", pending_replies.GRACE)

    async def forget(_call: CallAdmitted, _context: CallContext) -> Reply:
        await held.wait()
        return CallResult(b"late")

    held = asyncio.Event()
    call_path = chain(settings, forget, fused=fused)
    async with running(call_path.executor, call_path.policy, call_path.ingress):
        with pytest.raises(OutcomeUnknownError):
            await call_path.request(seconds=0.05)
        held.set()
    assert call_path.ingress.calls.in_flight == 0


@both
async def test_a_failing_handler_is_an_error_at_once(settings: Settings, *, fused: bool) -> None:
    async def broken(_call: CallAdmitted, _context: CallContext) -> Reply:
        raise RuntimeError("canary detail")

    call_path = chain(settings, broken, fused=fused)
    async with running(call_path.executor, call_path.policy, call_path.ingress):
        with pytest.raises(ToolbusError) as caught:
            await call_path.request(seconds=3600)
    assert "canary" not in caught.value.reason


@both
async def test_a_caller_that_disconnects_does_not_interrupt_the_call(
    settings: Settings, *, fused: bool
) -> None:
    started, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def held(call: CallAdmitted, _context: CallContext) -> Reply:
        started.set()
        await may_end.wait()
        ended.set()
        return CallResult(call.arguments)

    call_path = chain(settings, held, fused=fused)
    async with running(call_path.executor, call_path.policy, call_path.ingress):
        leaving = asyncio.create_task(call_path.request_detached())
        await started.wait()
        leaving.cancel()
        may_end.set()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()


async def test_a_late_answer_of_a_finished_call_affects_no_other(settings: Settings) -> None:
    call_path = chain(settings, echo, fused=False)
    async with running(call_path.executor, call_path.policy, call_path.ingress):
        assert await call_path.request() == b"{}"
        (first,) = call_path.admitted
        await call_path.executor.bus.publish(first.reply_to, CallResult(b"late").encode())
        assert await call_path.request(arguments=b"[]") == b"[]"


async def test_a_late_no_responders_message_of_a_finished_call_affects_no_other(
    settings: Settings,
) -> None:
    items: list[str] = []

    async def no_executor() -> None:
        items.append("one")

    call_path = chain(settings, echo, fused=False)
    async with running(call_path.policy, call_path.ingress):
        with pytest.raises(ExecutorDownError):
            await call_path.request()
        (first,) = call_path.admitted
        await call_path.policy.calls.hand_over(admitted(first), _Nowhere(), no_executor)
        await until(lambda: items, "policy is informed that there is no executor")
        # The same message a second time, now that the call is forgotten:
        no_responders = call_path.policy.calls.address(first.call_id)
        await call_path.policy.bus.publish("tb.run.echo", b"", no_responders)
        async with running(call_path.executor):
            assert await call_path.request(arguments=b"[]") == b"[]"
    assert items == ["one"]


class _Nowhere:
    """The context of a call without a caller."""

    async def send(self, message: ReplyMessage) -> None:
        """Drop the message."""


async def refused(call_path: Chain) -> bool:
    """Return whether the executor accepts no new call; a call it accepts still ends."""
    try:
        await call_path.request(seconds=0.01)
    except ExecutorDownError:
        return True
    except OutcomeUnknownError:
        return False
    return False


@both
async def test_draining_lets_a_running_call_end_and_accepts_no_new_one(
    settings: Settings, *, fused: bool
) -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    async def held(call: CallAdmitted, _context: CallContext) -> Reply:
        started.set()
        await may_end.wait()
        return CallResult(call.arguments)

    call_path = chain(settings, held, fused=fused)
    async with running(call_path.policy, call_path.ingress), running(call_path.executor):
        running_call = asyncio.create_task(call_path.request(arguments=b"1"))
        await started.wait()
        leaving = asyncio.create_task(call_path.executor.calls.drain(PATIENCE))
        await asyncio.sleep(0)  # a call accepted before the drain would wait for `may_end`
        await until_async(lambda: refused(call_path), "the executor takes no new call")
        await call_path.executor.calls.serve(CallAdmitted, "*", held, "executor")
        late = asyncio.create_task(refused(call_path))
        await asyncio.sleep(0)
        may_end.set()
        assert await running_call == b"1"
        assert await late, "a server that connects during the drain accepts calls"
        await leaving


@both
async def test_two_replicas_share_the_calls(settings: Settings, *, fused: bool) -> None:
    served: list[str] = []

    def behaviour(name: str) -> Behaviour:
        async def serve(call: CallAdmitted, _context: CallContext) -> Reply:
            served.append(name)
            return CallResult(call.arguments)

        return serve

    one = chain(settings, behaviour("one"), fused=fused)
    two = chain(settings, behaviour("two"), fused=fused)
    async with running(
        one.executor, two.executor, one.policy, two.policy, one.ingress, two.ingress
    ):
        await asyncio.gather(*(call_path.request() for call_path in (one, two) for _ in range(100)))
    assert len(served) == 200
    assert min(served.count("one"), served.count("two")) >= 20
    assert min(len(one.admitted), len(two.admitted)) >= 20


@pytest.fixture
def own_settings(settings: Settings, own_nats: NatsServer) -> Settings:
    """Return settings for a NATS server that may be killed."""
    own_nats.copy_seeds(settings.state_dir)
    return settings.model_copy(update={"nats_url": own_nats.url})


async def test_losing_the_bus_ends_every_waiting_call_at_once(
    own_settings: Settings, own_nats: NatsServer
) -> None:
    started: list[str] = []

    async def hold(call: CallAdmitted, _context: CallContext) -> None:
        started.append(call.call_id)

    await provisioned(own_nats)
    call_path = chain(own_settings, hold, fused=False)
    async with running(call_path.executor, call_path.policy, call_path.ingress):
        calls = [asyncio.create_task(call_path.request(seconds=3600)) for _ in range(20)]
        await until(lambda: len(started) == 20, "all calls are with the executor")
        own_nats.kill()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {OutcomeUnknownError}
        with pytest.raises(BusDownError):
            await call_path.request(seconds=3600)


async def test_calls_flow_again_when_the_bus_is_back(
    own_settings: Settings, own_nats: NatsServer
) -> None:
    await provisioned(own_nats)
    call_path = chain(own_settings, echo, fused=False)
    services = (call_path.executor, call_path.policy, call_path.ingress)
    async with running(*services):
        own_nats.kill()
        await until(
            lambda: not any(service.bus.connected for service in services),
            "all services are disconnected",
        )
        own_nats.start()
        await until(
            lambda: all(service.bus.connected for service in services), "all services are back"
        )
        async with asyncio.timeout(PATIENCE):
            while True:  # a service reconnects a moment before the server has its subscriptions
                try:
                    assert await call_path.request() == b"{}"
                except UnavailableError:
                    await asyncio.sleep(0.05)
                else:
                    break
