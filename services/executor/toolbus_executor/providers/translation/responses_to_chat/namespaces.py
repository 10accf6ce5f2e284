"""Namespaces of functions: the chat completions API has only functions with one name each.

A function `close` of the namespace `agents` becomes the function `agents__close`.
"""

from typing import Any

from toolbus_executor.providers.translation.apis import responses

SEPARATOR = "__"


def joined_name(namespace: str | None, name: str) -> str:
    """Return the name of a function in the chat completions API."""
    return f"{namespace}{SEPARATOR}{name}" if namespace else name


def named_functions(tools: list[responses.Tool]) -> list[responses.Tool]:
    """Return the tools, with the functions of each namespace under their joined names.

    A description begins with that of the namespace.
    """
    made: list[responses.Tool] = []
    for tool in tools:
        if tool.type != "namespace" or not tool.name:
            made.append(tool)
            continue
        for each in tool.tools or ():
            texts = [text for text in (tool.description, each.description) if text]
            made.append(
                responses.Tool(
                    type=each.type,
                    name=joined_name(tool.name, each.name or ""),
                    description="\n\n".join(texts) or None,
                    parameters=each.parameters,
                    strict=each.strict,
                )
            )
    return made


def call_name(name: str, tools: Any) -> dict[str, str]:
    """Return the fields of a call that name its function. `tools` are those of the request."""
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, dict) or tool.get("type") != "namespace":
            continue
        namespace = tool.get("name")
        for each in tool.get("tools") or ():
            if joined_name(namespace, each.get("name")) == name:
                return {"name": each["name"], "namespace": str(namespace)}
    return {"name": name}
