"""Every method of both families: from a call to its result."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import client_requests, resources, task_tools, tools
from .call import Call, InputNeededError
from .notifications import Listener, Notifier
from .registry import TOOLS, Place, Tool
from .request_counts import Seen
from .tasks import Task, Tasks
from .wire import (
    IMPLEMENTATION,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY,
    LEVELS,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    MODERN,
    SERVER_INFO,
    SUBSCRIPTION,
    TASKS,
    UI,
    Json,
    ProtocolFamily,
    RefusedError,
    notification,
)

__all__ = ["TOOLS", "Fixture", "client_requests", "task_tools", "tools"]

_CACHED = {
    "server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list",
    "resources/read",
}  # fmt: skip
_BASE = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
}
_DISCOVERED = {**_BASE, "extensions": {TASKS: {}, UI: {}}}
_INITIALIZED = {
    **_BASE,
    "logging": {},
    "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}},
}
_CLASSIC = {
    "test_sampling", "test_elicitation", "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
}  # fmt: skip
_TOO_MANY = 100

Answer = Callable[[Call], Awaitable[Json]]


@dataclass
class Fixture:
    """The server behind every transport. `page` is the length of a list's page, 0 for no paging.

    `ttl` is the announced lifetime of its answers in milliseconds; `definitions` is a file that may
    replace the tool definitions, read at every listing. With `classic` the tools of the handshake
    revisions send their requests only during the call, as tools written for those revisions do.
    """

    lax: bool = False
    page: int = 0
    ttl: int = 60_000
    notifier: Notifier = field(default_factory=Notifier)
    seen: Seen = field(default_factory=Seen)
    definitions: Path | None = None
    classic: bool = False

    def __post_init__(self) -> None:
        """Build the method tables."""
        self.tasks = Tasks(self.notifier)
        self._place = Place(self.notifier, asyncio.sleep)
        both: dict[str, Answer] = {
            "tools/list": self._list_tools,
            "tools/call": self._call_tool,
            "resources/list": self._list("resources", resources.RESOURCES),
            "resources/templates/list": self._list("resourceTemplates", resources.TEMPLATES),
            "resources/read": resources.read,
            "prompts/list": self._list("prompts", resources.PROMPTS),
            "prompts/get": resources.prompt,
            "completion/complete": _plain(resources.complete),
        }
        self._methods: dict[ProtocolFamily, dict[str, Answer]] = {
            ProtocolFamily.MODERN: {
                **both,
                "server/discover": _plain(_discover),
                "subscriptions/listen": self._listen,
                "tasks/get": self._get_task,
                "tasks/update": self._update_task,
                "tasks/cancel": self._cancel_task,
            },
            ProtocolFamily.LEGACY: {
                **both,
                "initialize": _plain(_initialize),
                "ping": _plain(lambda _call: {}),
                "logging/setLevel": _plain(_level),
                "resources/subscribe": _plain(lambda _call: {}),
                "resources/unsubscribe": _plain(lambda _call: {}),
                "tasks/get": _plain(lambda call: self.tasks.find(call.params).nested),
                "tasks/list": _plain(lambda _call: {"tasks": [t.nested for t in self.tasks.all()]}),
                "tasks/cancel": self._cancel_nested,
                "tasks/result": self._task_result,
            },
        }

    async def answer(self, call: Call) -> Json:
        """Return the result of a call in the form of its family. Raises `RefusedError`."""
        method = self._methods[call.family].get(call.method)
        if method is None:
            status = 404 if call.family is ProtocolFamily.MODERN else 200
            raise RefusedError(METHOD_NOT_FOUND, f"Method not found: {call.method}", status=status)
        try:
            result = await method(call)
        except InputNeededError as needed:
            result = needed.result
        return self._shaped(call, result) if call.family is ProtocolFamily.MODERN else result

    def _shaped(self, call: Call, result: Json) -> Json:
        """Add the members of the stateless family; a lax server leaves out the optional ones."""
        meta = {SERVER_INFO: IMPLEMENTATION, **result.get("_meta", {})}
        if self.lax and call.method != "server/discover":
            return result
        shaped = {"resultType": "complete", **result, "_meta": meta}
        if call.method in _CACHED and shaped["resultType"] == "complete":
            shaped |= {"ttlMs": self.ttl, "cacheScope": "public"}
        return shaped

    def _list(self, member: str, entries: list[Json]) -> Answer:
        async def answer(call: Call) -> Json:
            return self._paged(member, entries, call)

        return answer

    async def _list_tools(self, call: Call) -> Json:
        listed = []
        for name in TOOLS:
            shown = TOOLS[name].listed
            if call.family is ProtocolFamily.LEGACY and TOOLS[name].task == "optional":
                shown["execution"] = {"taskSupport": "optional"}
            listed.append(shown)
        return self._paged("tools", self._rewritten(listed), call)

    def _rewritten(self, listed: list[Json]) -> list[Json]:
        if self.definitions is None or not self.definitions.exists():
            return listed
        instead: dict[str, Json | None] = json.loads(self.definitions.read_text())
        found = {**{shown["name"]: shown for shown in listed}, **instead}
        return [shown for shown in found.values() if shown is not None]

    def _paged(self, member: str, entries: list[Json], call: Call) -> Json:
        cursor = call.params.get("cursor")
        start = 0
        if cursor is not None:
            number = str(cursor).removeprefix("page-")
            if not self.page or not number.isdigit() or int(number) >= len(entries):
                raise RefusedError(INVALID_PARAMS, "This cursor is not one of ours.")
            start = int(number)
        if not self.page:
            return {member: entries}
        end = start + self.page
        more = {"nextCursor": f"page-{end}"} if end < len(entries) else {}
        return {member: entries[start:end], **more}

    async def _call_tool(self, call: Call) -> Json:
        tool = TOOLS.get(str(call.params.get("name")))
        if tool is None:
            raise RefusedError(INVALID_PARAMS, f"Unknown tool: {call.params.get('name')}")
        if (
            call.family is ProtocolFamily.LEGACY
            and "task" in call.params
            and tool.task != "forbidden"
        ):
            return {"task": self._begin(tool, call).nested}
        if call.family is ProtocolFamily.LEGACY or tool.task == "forbidden":
            return await self._run(tool, call)
        if TASKS in call.capabilities.get("extensions", {}):
            if tool.before is not None:
                call.params["before"] = await tool.before(call, self._place)
            return self._begin(tool, call).created_result
        if tool.task == "required":
            raise _tasks_needed()
        return await self._run(tool, call)

    async def _run(self, tool: Tool, call: Call) -> Json:
        if self.classic and call.family is ProtocolFamily.MODERN and tool.name in _CLASSIC:
            raise RefusedError(INVALID_REQUEST, "There is no way back to the client here.")
        if tool.before is not None and "before" not in call.params:
            call.params["before"] = await tool.before(call, self._place)
        try:
            return await tool.run(call, self._place)
        except (ValueError, TypeError) as error:
            raise RefusedError(INTERNAL_ERROR, f"The tool failed: {error}") from error

    def _begin(self, tool: Tool, call: Call) -> Task:
        async def work(task: Task) -> Json:
            return await self._run(tool, replace(call, answered=task.ask))

        return self.tasks.begin(work)

    async def _get_task(self, call: Call) -> Json:
        return self._task(call).detailed

    async def _update_task(self, call: Call) -> Json:
        answers = call.params.get("inputResponses")
        await self._task(call).answer(answers if isinstance(answers, dict) else {})
        return {}

    async def _cancel_task(self, call: Call) -> Json:
        await self._task(call).cancel()
        return {}

    def _task(self, call: Call) -> Task:
        if TASKS not in call.capabilities.get("extensions", {}):
            raise _tasks_needed()
        return self.tasks.find(call.params)

    async def _cancel_nested(self, call: Call) -> Json:
        task = self.tasks.find(call.params)
        if task.ended:
            raise RefusedError(INVALID_PARAMS, f"The task is {task.status} already.")
        await task.cancel()
        return task.nested

    async def _task_result(self, call: Call) -> Json:
        """Wait for the end of a task and send its requests to the client meanwhile."""
        task = self.tasks.find(call.params)
        while not task.ended:
            for key, request in task.pending.items():
                params = {**request.get("params", {}), "_meta": task.related}
                await task.answer({key: await call.peer.request(request["method"], params)})
            async with task.changed:
                await task.changed.wait_for(lambda: task.ended or bool(task.pending))
        if task.error is not None:
            raise RefusedError(task.error["code"], task.error["message"], task.error.get("data"))
        if task.result is None:
            raise RefusedError(INVALID_PARAMS, f"The task is {task.status}.")
        return {**task.result, "_meta": {**task.result.get("_meta", {}), **task.related}}

    async def _listen(self, call: Call) -> Json:
        wanted = call.params.get("notifications")
        if not isinstance(wanted, dict):
            raise RefusedError(INVALID_PARAMS, "Say which notifications.", status=400)
        tag = {SUBSCRIPTION: call.params["subscription"]}
        over = asyncio.Event()

        def tell(method: str, params: Json) -> None:
            meta = {**params.get("_meta", {}), **tag}
            call.peer.notify(notification(method, {**params, "_meta": meta}))

        listener = Listener(
            tell,
            over.set,
            frozenset(name for name in _LISTS if wanted.get(name) is True),
            set(_texts(wanted.get("resourceSubscriptions"))),
            frozenset(_texts(wanted.get("taskIds"))),
            everything=self.lax,
        )
        honoured: Json = dict.fromkeys(sorted(listener.lists), True)
        honoured |= (
            {"resourceSubscriptions": sorted(listener.resources)} if listener.resources else {}
        )
        honoured |= {"taskIds": sorted(listener.tasks)} if listener.tasks else {}
        tell("notifications/subscriptions/acknowledged", {"notifications": honoured})
        self.notifier.listeners.add(listener)
        try:
            await over.wait()
        finally:
            self.notifier.listeners.discard(listener)
        return {"_meta": tag}


_LISTS = ("toolsListChanged", "promptsListChanged", "resourcesListChanged")


def _texts(found: object) -> list[str]:
    return [str(entry) for entry in found][:_TOO_MANY] if isinstance(found, list) else []


def _plain(work: Callable[[Call], Json]) -> Answer:
    async def answer(call: Call) -> Json:
        return work(call)

    return answer


def _tasks_needed() -> RefusedError:
    data: Json = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    return RefusedError(MISSING_CAPABILITY, "This needs the tasks extension.", data, status=400)


def _discover(_call: Call) -> Json:
    return {
        "supportedVersions": list(MODERN),
        "capabilities": _DISCOVERED,
        "instructions": "A server of tests.",
    }


def _initialize(call: Call) -> Json:
    request = call.params.get("protocolVersion")
    version = request if request in LEGACY else LEGACY[0]
    result = dict(_INITIALIZED)
    if version != LEGACY[0]:
        del result["tasks"]
    return {
        "protocolVersion": version,
        "capabilities": result,
        "serverInfo": IMPLEMENTATION,
        "instructions": "A server of tests.",
    }


def _level(call: Call) -> Json:
    if call.params.get("level") not in LEVELS:
        raise RefusedError(INVALID_PARAMS, "There is no such level.")
    return {}
