"""The call lane gives the same answers on the bus and fused in one process."""

import asyncio

import pytest

from harness.engines.bus_reset import provisioned
from harness.engines.nats_server import NatsServer
from harness.services.call_chain import Behaviour, Chain, admitted, chain, running
from harness.waits import PATIENCE, until, until_async
from toolbus_common.contracts import CallAdmitted, CallError, CallResult, Progress, ReplyMessage
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import (
    BusDownError,
    ExecutorDownError,
    OutcomeUnknownError,
    PolicyDownError,
    ToolbusError,
    UnavailableError,
    UpstreamDeadError,
)
from toolbus_common.settings import Settings

both = pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])


async def echo(call: CallAdmitted, reply: ReplyChannel) -> None:
    await reply.send(CallResult(call.arguments))


@both
async def test_a_call_is_answered_with_the_bytes_the_executor_sent(
    settings: Settings, *, fused: bool
) -> None:
    lane = chain(settings, echo, fused=fused)
    odd = b'{"n": 1.10, "big": 123456789012345678901234567890, "u": "\\u00e9\xc3\xa9"}'
    async with running(lane.executor, lane.policy, lane.ingress):
        assert await lane.request(arguments=odd) == odd
        many = [b"%d" % n for n in range(200)]
        assert await asyncio.gather(*(lane.request(arguments=n) for n in many)) == many
    assert lane.ingress.calls.in_flight == 0


@both
async def test_progress_frames_come_in_order_before_the_result(
    settings: Settings, *, fused: bool
) -> None:
    async def slow(_call: CallAdmitted, reply: ReplyChannel) -> None:
        for n in range(5):
            await reply.send(Progress(b"%d" % n))
        await reply.send(CallResult(b"done"))

    lane, result = chain(settings, slow, fused=fused), list[bytes]()
    async with running(lane.executor, lane.policy, lane.ingress):
        assert await lane.request(result.append) == b"done"
    assert result == [b"0", b"1", b"2", b"3", b"4"]


@both
async def test_a_failure_arrives_as_the_error_it_was(settings: Settings, *, fused: bool) -> None:
    async def fail(_call: CallAdmitted, reply: ReplyChannel) -> None:
        await reply.send(CallError(UpstreamDeadError("echo exited with 1", server="echo")))

    lane = chain(settings, fail, fused=fused)
    async with running(lane.executor, lane.policy, lane.ingress):
        with pytest.raises(UpstreamDeadError, match="exited with 1") as caught:
            await lane.request()
    assert caught.value.data == {"server": "echo"}


@both
async def test_frames_after_the_result_are_dropped(settings: Settings, *, fused: bool) -> None:
    async def babble(call: CallAdmitted, reply: ReplyChannel) -> None:
        await reply.send(CallResult(call.arguments))
        await reply.send(Progress(b"late"))
        await reply.send(CallResult(b"second"))
        await reply.send(CallError(UpstreamDeadError("third")))

    lane, result = chain(settings, babble, fused=fused), list[bytes]()
    async with running(lane.executor, lane.policy, lane.ingress):
        assert await lane.request(result.append, arguments=b"1") == b"1"
        assert await lane.request(result.append, arguments=b"2") == b"2"
    assert result == []


@both
async def test_without_an_executor_policy_learns_at_once_that_nobody_is_there(
    settings: Settings, *, fused: bool
) -> None:
    lane = chain(settings, echo, fused=fused)
    async with running(lane.policy, lane.ingress):
        with pytest.raises(ExecutorDownError):
            await lane.request(seconds=3600)


@both
async def test_without_a_policy_the_caller_learns_at_once_that_nobody_decides(
    settings: Settings, *, fused: bool
) -> None:
    lane = chain(settings, echo, fused=fused)
    async with running(lane.executor, lane.ingress):
        with pytest.raises(PolicyDownError):
            await lane.request(seconds=3600)
    assert lane.admitted == []


@both
async def test_a_call_nobody_answers_ends_by_its_deadline(
    settings: Settings, *, fused: bool
) -> None:
    async def forget(_call: CallAdmitted, _reply: ReplyChannel) -> None:
        await held.wait()

    held = asyncio.Event()
    lane = chain(settings, forget, fused=fused)
    async with running(lane.executor, lane.policy, lane.ingress):
        with pytest.raises(OutcomeUnknownError):
            await lane.request(seconds=0.05)
        held.set()
    assert lane.ingress.calls.in_flight == 0


@both
async def test_a_handler_that_breaks_is_answered_for_at_once(
    settings: Settings, *, fused: bool
) -> None:
    async def broken(_call: CallAdmitted, _reply: ReplyChannel) -> None:
        raise RuntimeError("canary detail")

    lane = chain(settings, broken, fused=fused)
    async with running(lane.executor, lane.policy, lane.ingress):
        with pytest.raises(ToolbusError) as caught:
            await lane.request(seconds=3600)
    assert "canary" not in caught.value.reason


@both
async def test_a_caller_that_leaves_does_not_stop_the_call_half_way(
    settings: Settings, *, fused: bool
) -> None:
    started, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def held(call: CallAdmitted, reply: ReplyChannel) -> None:
        started.set()
        await may_end.wait()
        await reply.send(CallResult(call.arguments))
        ended.set()

    lane = chain(settings, held, fused=fused)
    async with running(lane.executor, lane.policy, lane.ingress):
        leaving = asyncio.create_task(lane.request())
        await started.wait()
        leaving.cancel()
        may_end.set()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()


async def test_a_late_answer_of_a_finished_call_harms_no_other(settings: Settings) -> None:
    lane = chain(settings, echo, fused=False)
    async with running(lane.executor, lane.policy, lane.ingress):
        assert await lane.request() == b"{}"
        (first,) = lane.admitted
        await lane.executor.bus.publish(first.reply_to, CallResult(b"late").encode())
        assert await lane.request(arguments=b"[]") == b"[]"


async def test_a_late_nobody_of_a_finished_call_harms_no_other(settings: Settings) -> None:
    items: list[str] = []
    lane = chain(settings, echo, fused=False)
    async with running(lane.policy, lane.ingress):
        with pytest.raises(ExecutorDownError):
            await lane.request()
        (first,) = lane.admitted
        await lane.policy.calls.hand_over(admitted(first), _Nowhere(), lambda: items.append("one"))
        await until(lambda: items, "policy heard that nobody is there")
        # The same news a second time, now that the call is forgotten:
        nobody = lane.policy.calls.address(first.call_id)
        await lane.policy.bus.publish("tb.run.echo", b"", nobody)
        async with running(lane.executor):
            assert await lane.request(arguments=b"[]") == b"[]"
    assert items == ["one"]


class _Nowhere:
    """A reply nobody waits for."""

    address = "tb.reply.ingress.nowhere.x"

    async def send(self, frame: ReplyMessage) -> None:
        """Drop it."""


async def refused(lane: Chain) -> bool:
    """Whether the executor takes nothing new; a call it does take still ends, so none is left."""
    try:
        await lane.request(seconds=0.01)
    except ExecutorDownError:
        return True
    except OutcomeUnknownError:
        return False
    return False


@both
async def test_draining_lets_a_call_under_way_end_and_takes_no_new_one(
    settings: Settings, *, fused: bool
) -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    async def held(call: CallAdmitted, reply: ReplyChannel) -> None:
        started.set()
        await may_end.wait()
        await reply.send(CallResult(call.arguments))

    lane = chain(settings, held, fused=fused)
    async with running(lane.policy, lane.ingress), running(lane.executor):
        under_way = asyncio.create_task(lane.request(arguments=b"1"))
        await started.wait()
        leaving = asyncio.create_task(lane.executor.calls.drain(PATIENCE))
        await until_async(lambda: refused(lane), "the executor takes no new call")
        may_end.set()
        assert await under_way == b"1"
        await leaving


@both
async def test_two_replicas_share_the_calls(settings: Settings, *, fused: bool) -> None:
    served: list[str] = []

    def behaviour(name: str) -> Behaviour:
        async def serve(call: CallAdmitted, reply: ReplyChannel) -> None:
            served.append(name)
            await reply.send(CallResult(call.arguments))

        return serve

    one = chain(settings, behaviour("one"), fused=fused)
    two = chain(settings, behaviour("two"), fused=fused)
    async with running(
        one.executor, two.executor, one.policy, two.policy, one.ingress, two.ingress
    ):
        await asyncio.gather(*(lane.request() for lane in (one, two) for _ in range(100)))
    assert len(served) == 200
    assert min(served.count("one"), served.count("two")) >= 20
    assert min(len(one.admitted), len(two.admitted)) >= 20


@pytest.fixture
def own_settings(settings: Settings, own_nats: NatsServer) -> Settings:
    """The same with a NATS server that may be killed."""
    own_nats.copy_seeds(settings.state_dir)
    return settings.model_copy(update={"nats_url": own_nats.url})


async def test_losing_the_bus_ends_every_waiting_call_at_once(
    own_settings: Settings, own_nats: NatsServer
) -> None:
    started: list[str] = []

    async def hold(call: CallAdmitted, _reply: ReplyChannel) -> None:
        started.append(call.call_id)

    await provisioned(own_nats)
    lane = chain(own_settings, hold, fused=False)
    async with running(lane.executor, lane.policy, lane.ingress):
        calls = [asyncio.create_task(lane.request(seconds=3600)) for _ in range(20)]
        await until(lambda: len(started) == 20, "all calls are with the executor")
        own_nats.kill()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {OutcomeUnknownError}
        with pytest.raises(BusDownError):
            await lane.request(seconds=3600)


async def test_calls_flow_again_when_the_bus_is_back(
    own_settings: Settings, own_nats: NatsServer
) -> None:
    await provisioned(own_nats)
    lane = chain(own_settings, echo, fused=False)
    services = (lane.executor, lane.policy, lane.ingress)
    async with running(*services):
        own_nats.kill()
        await until(
            lambda: not any(service.bus.connected for service in services), "all services noticed"
        )
        own_nats.start()
        await until(
            lambda: all(service.bus.connected for service in services), "all services are back"
        )
        async with asyncio.timeout(PATIENCE):
            while True:  # a service is back a moment before the server knows what it hears
                try:
                    assert await lane.request() == b"{}"
                except UnavailableError:
                    await asyncio.sleep(0.05)
                else:
                    break
