"""Limits on the number of connections: in total, per address, and per client behind a proxy."""

import asyncio

from harness.network.raw_connections import posting
from harness.services.http_application import GET, LONG, counted, place, refused
from harness.waits import until
from toolbus_common.http_server.limits import Limits
from toolbus_common.http_server.proxy_addresses import Proxies


async def test_connections_beyond_the_limit_are_rejected_and_accepted_again_later() -> None:
    async with place(Limits(connections=3, head_seconds=LONG)) as here:
        before = refused("total")
        connections = [here.connect() for _ in range(3)]
        await until(lambda: here.open == 3, "they are open")
        assert counted("toolbus_http_connections") == 3
        answer = await here.answer_to()
        assert (answer.status, answer.closes) == (503, True)
        assert answer.headers[b"retry-after"] == b"1"
        assert refused("total") == before + 1
        connections.pop().close()
        await until(lambda: here.open == 2, "one has left")
        assert (await here.answer_to(GET)).status == 200
        for each in connections:
            each.close()
        await until(lambda: counted("toolbus_http_connections") == 0, "all have left")


async def test_one_address_does_not_use_every_connection() -> None:
    async with place(Limits(per_loopback=2, head_seconds=LONG)) as here:
        before = refused("address")
        with here.connect(), here.connect():
            await until(lambda: here.open == 2, "they are open")
            assert (await here.answer_to()).status == 503
            assert refused("address") == before + 1
        await until(lambda: not here.open, "they have left")
        assert (await here.answer_to(GET)).status == 200


def through_proxy(path: str, client: str) -> bytes:
    return posting(path, b"", f"X-Forwarded-For: {client}")


async def test_behind_a_configured_proxy_a_client_is_limited_by_its_running_requests() -> None:
    limits = Limits(per_address=2, per_loopback=1, proxies=Proxies.of("127.0.0.0/8"))
    async with place(limits) as here:
        with here.connect() as one, here.connect() as two:
            one.send(through_proxy("/held", "203.0.113.7"))
            two.send(through_proxy("/held", "198.51.100.1, 203.0.113.7"))
            await until(lambda: len(here.app.seen) == 2, "both requests run")
            assert (await here.answer_to(through_proxy("/", "203.0.113.7"))).status == 503
            assert (await here.answer_to(through_proxy("/", "203.0.113.8"))).status == 200
            here.app.go.set()
            for each in (one, two):
                assert (await asyncio.to_thread(each.answer)).status == 200
            assert (await here.answer_to(through_proxy("/", "203.0.113.7"))).status == 200
        assert {scope["client"][0] for scope in here.app.seen} == {"203.0.113.7", "203.0.113.8"}


async def test_forwarded_headers_of_an_unconfigured_proxy_are_ignored() -> None:
    async with place() as here:
        assert (await here.answer_to(through_proxy("/", "203.0.113.7"))).status == 200
        assert here.app.seen[0]["client"][0] == "127.0.0.1"
