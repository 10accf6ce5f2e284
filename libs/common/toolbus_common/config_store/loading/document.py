"""Parsed YAML text: plain data with the line of each value."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from toolbus_common.config_store.loading.yaml_nodes import compose

ConfigPath = tuple[str | int, ...]

DEEPEST = 32
MAX_NODES = 200_000  # limits the growth by nested aliases
TOO_MANY = (
    f"the file has more than {MAX_NODES:,} values (an alias counts at each use); create keys "
    "with 'toolbus keys create' instead of configuring so many"
)
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True, order=True)
class ConfigProblem:
    """A validation error or warning: its line (from 1), its dotted path, and a message."""

    line: int
    path: str
    message: str

    def __str__(self) -> str:
        """Return the path and the message."""
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(slots=True)
class Document:
    """The data of a YAML text, the line of every path, and the syntax errors."""

    data: Any = None
    lines: dict[ConfigPath, int] = field(default_factory=dict)
    problems: list[ConfigProblem] = field(default_factory=list)

    def line(self, path: ConfigPath) -> int:
        """Return the line of a path, or of its nearest parent that exists."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: ConfigPath, message: str) -> ConfigProblem:
        """Return a problem with the line of this path."""
        return ConfigProblem(self.line(path), dotted(path), message)


class _TooManyError(Exception):
    """The file has too many values. `line` is the line of the first value above the limit."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def dotted(path: ConfigPath) -> str:
    """Return a path in dotted form."""
    return ".".join(map(str, path))


def read(text: str) -> Document:
    """Return the parsed text. Never raises: each syntax error is a problem in the result."""
    document = Document()
    try:
        node = compose(text)
        if node is not None:
            document.data = _Reader(document).value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        document.problems.append(
            ConfigProblem(line, "", f"the file is not valid YAML: {error.problem}")
        )
    except yaml.YAMLError as error:
        document.problems.append(
            ConfigProblem(1, "", f"the file is not valid YAML: {str(error).splitlines()[0]}")
        )
    except _TooManyError as error:
        document.problems.append(ConfigProblem(error.line, "", TOO_MANY))
    except RecursionError:
        document.problems.append(ConfigProblem(1, "", "the file is nested too deeply"))
    return document


class _Reader:
    """Converts YAML nodes to data and records the line of each node."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def value(self, node: Node, path: ConfigPath) -> Any:
        self._nodes += 1
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if len(path) > DEEPEST:
            self._add(node, path, "is nested too deeply")
            return None
        if self._nodes > MAX_NODES:
            raise _TooManyError(node.start_mark.line + 1)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(each, (*path, at)) for at, each in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: ConfigPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, int] = {}
        merged: list[Node] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                merged.append(value)
            elif not isinstance(key, ScalarNode):
                self._add(key, path, "has a name that is not plain text")
            elif key.value in first:
                before = first[key.value]
                where = (*path, key.value)
                self._add(key, where, f"occurs twice; the first is on line {before}")
            else:
                first[key.value] = line
                self._document.lines[(*path, key.value)] = line
                data[key.value] = self.value(value, (*path, key.value))
        return self._with_merged(data, merged, path)

    def _with_merged(
        self, data: dict[str, Any], merged: list[Node], path: ConfigPath
    ) -> dict[str, Any]:
        for node in _each_merged(merged):
            inherited = self.value(node, path)
            if isinstance(inherited, dict):
                data = {**inherited, **data}
            else:
                self._add(node, path, "merges (<<) a value that has no fields; name a mapping")
        return data

    def _scalar(self, node: Node, path: ConfigPath) -> Any:
        try:
            return self._scalars.construct_object(node, deep=True)
        except yaml.constructor.ConstructorError:
            self._add(node, path, f"uses the unknown tag {node.tag}; remove it")
        except (ValueError, OverflowError):
            self._add(
                node, path, "looks like a date or a number but is invalid, such as 2027-13-01"
            )
        return None

    def _add(self, node: Node, path: ConfigPath, message: str) -> None:
        problem = ConfigProblem(node.start_mark.line + 1, dotted(path), message)
        self._document.problems.append(problem)


def _each_merged(merged: list[Node]) -> Iterator[Node]:
    for node in merged:
        if isinstance(node, SequenceNode):
            yield from node.value
        else:
            yield node
