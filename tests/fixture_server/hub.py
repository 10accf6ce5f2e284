"""News that outlives a request: changed lists, changed resources, tasks that moved on."""

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
    """Someone who wants some of the news."""

    tell: Callable[[str, Json], None]
    end: Callable[[], None] = lambda: None
    lists: frozenset[str] = frozenset()
    resources: set[str] = field(default_factory=set)
    tasks: frozenset[str] = frozenset()
    everything: bool = False
    statuses: bool = False  # of every task, in the form of 2025-11-25


class Hub:
    """Brings news to the listeners that asked for it."""

    def __init__(self) -> None:
        self.listeners: set[Listener] = set()

    def list_changed(self, kind: str) -> None:
        """One of the lists changed."""
        for listener in list(self.listeners):
            if listener.everything or kind in listener.lists:
                listener.tell(LISTS[kind], {})

    def resource_updated(self, uri: str) -> None:
        """A resource has new contents."""
        for listener in list(self.listeners):
            if listener.everything or uri in listener.resources:
                listener.tell("notifications/resources/updated", {"uri": uri})

    def task_moved(self, task_id: str, told: Json, nested: Json) -> None:
        """A task has a new status."""
        for listener in list(self.listeners):
            if task_id in listener.tasks:
                listener.tell("notifications/tasks", told)
            if listener.statuses:
                listener.tell("notifications/tasks/status", nested)

    def end(self) -> None:
        """End every subscription in good order."""
        for listener in list(self.listeners):
            listener.end()
