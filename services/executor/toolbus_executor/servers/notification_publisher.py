"""Publisher of a server's notifications that belong to no call."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

import msgspec

from toolbus_common.contracts import CallAdmitted, ServerNotification
from toolbus_common.errors import ToolbusError
from toolbus_common.service.service import Service
from toolbus_executor.guards.outside_calls import OutsideCalls
from toolbus_executor.upstreams.base import UpstreamCallbacks
from toolbus_executor.upstreams.subscriptions import Watched

UPDATED = "notifications/resources/updated"


class NotificationPublisher:
    """Publisher of the notifications of one server.

    A list change is published only after the list was read again. `watched` contains each resource
    to which at least one client is subscribed. `guards` check each other notification.
    """

    def __init__(
        self, server: str, service: Service, watched: Watched, guards: OutsideCalls
    ) -> None:
        self._server = server
        self._watched = watched
        self._service = service
        self._guards = guards
        self._changed: dict[tuple[str, str, str], ServerNotification] = {}

    def callbacks(
        self,
        on_lists_changed: Callable[[], None],
        relist: Callable[[CallAdmitted], Awaitable[None]],
        on_dropped: Callable[[str], None],
        on_request: Callable[[], None] | None,
    ) -> UpstreamCallbacks:
        """Return the callbacks for a connection's messages that belong to no call."""
        return UpstreamCallbacks(
            on_lists_changed,
            self.publish_to_all,
            relist,
            on_dropped,
            self.publish_to,
            on_request,
            note_call=self._guards.note,
            check_answer=self._guards.answer,
        )

    def publish_to_all(self, method: str, params: bytes) -> None:
        """Publish a notification for all clients."""
        self.publish_to("", "", method, params, self._watched.names)

    def publish_to(
        self,
        principal_id: str,
        session: str,
        method: str,
        params: bytes,
        watched: Collection[str] = (),
        request_id: str = "",
    ) -> None:
        """Publish a notification or request for a principal or for one client session.

        `watched` are the resources that this receiver is subscribed to. `request_id` is set for a
        request of the server.
        """
        notification = ServerNotification(
            server=self._server,
            method=method,
            principal_id=principal_id,
            session=session,
            unsolicited=method == UPDATED and _uri_of(params) not in watched,
            request_id=request_id,
            params=params,
        )
        if method.endswith("/list_changed"):
            self._changed[method, principal_id, session] = notification
        else:
            self._service.spawn(self._publish_checked(notification))

    async def publish_list_changes(self) -> None:
        """Publish the pending list changes, even if the list has not changed."""
        notification, self._changed = self._changed, {}
        for each in notification.values():
            await self._publish(each)

    async def _publish_checked(self, notification: ServerNotification) -> None:
        """Publish a notification after its guards. One that a guard rejects is dropped."""
        to, params = notification, notification.params
        checked = await self._guards.message(to.principal_id, to.session, to.method, params)
        if checked is not None:
            changed = checked is not params
            await self._publish(to.model_copy(update={"params": checked}) if changed else to)

    async def _publish(self, notification: ServerNotification) -> None:
        with suppress(ToolbusError):  # if the bus is down, no subscriber is reachable
            await self._service.bus.publish(notification.subject, notification.encode())


def _uri_of(params: bytes) -> str:
    try:
        uri = msgspec.json.decode(params, type=dict[str, msgspec.Raw]).get("uri", b"")
        return msgspec.json.decode(uri, type=str)
    except msgspec.DecodeError:
        return ""
