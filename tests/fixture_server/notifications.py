"""Notifications outside requests: changed lists, changed resources, changed tasks."""

from collections.abc import Callable
from dataclasses import dataclass, field

from .wire import Json

LISTS = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}


@dataclass(eq=False)
class Listener:
    """A subscriber of some notifications."""

    tell: Callable[[str, Json], None]
    end: Callable[[], None] = lambda: None
    lists: frozenset[str] = frozenset()
    resources: set[str] = field(default_factory=set)
    tasks: frozenset[str] = frozenset()
    everything: bool = False
    statuses: bool = False  # notified of every task, in the form of 2025-11-25


class Notifier:
    """Sends notifications to their subscribers."""

    def __init__(self) -> None:
        self.listeners: set[Listener] = set()

    def list_changed(self, kind: str) -> None:
        """Notify that one of the lists changed."""
        for listener in list(self.listeners):
            if listener.everything or kind in listener.lists:
                listener.tell(LISTS[kind], {})

    def resource_updated(self, uri: str) -> None:
        """Notify that a resource has new contents."""
        for listener in list(self.listeners):
            if listener.everything or uri in listener.resources:
                listener.tell("notifications/resources/updated", {"uri": uri})

    def task_moved(self, task_id: str, detailed: Json, nested: Json) -> None:
        """Notify that a task has a new status."""
        for listener in list(self.listeners):
            if task_id in listener.tasks:
                listener.tell("notifications/tasks", detailed)
            if listener.statuses:
                listener.tell("notifications/tasks/status", nested)

    def end(self) -> None:
        """End every subscription with its final message."""
        for listener in list(self.listeners):
            listener.end()
