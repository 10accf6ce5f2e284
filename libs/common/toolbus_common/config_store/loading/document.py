"""A YAML text as plain data that still knows on which line each part stands."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from toolbus_common.config_store.loading.yaml_nodes import compose

Place = tuple[str | int, ...]

DEEPEST = 32
MOST_NODES = 200_000  # aliases of aliases would otherwise multiply without end
TOO_MANY = (
    f"here are more than the {MOST_NODES:,} values a file may hold, aliases counted where they are "
    "used; make keys with 'toolbus keys create' instead of declaring so many"
)
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True, order=True)
class ConfigProblem:
    """What is wrong, on which line (from 1), at which dotted place."""

    line: int
    place: str
    sentence: str

    def __str__(self) -> str:
        """The fault as one sentence."""
        return f"{self.place}: {self.sentence}" if self.place else self.sentence


@dataclass(slots=True)
class Document:
    """The data, the line of every place in it, and what was wrong with the text itself."""

    data: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[ConfigProblem] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest thing around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def fault(self, place: Place, sentence: str) -> ConfigProblem:
        """A fault at a place."""
        return ConfigProblem(self.line(place), dotted(place), sentence)


class _TooManyError(Exception):
    """More values than are read, on this line."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def dotted(place: Place) -> str:
    """A place as people write it."""
    return ".".join(map(str, place))


def read(text: str) -> Document:
    """Read a text. Never raises: what cannot be read is a fault."""
    document = Document()
    try:
        node = compose(text)
        if node is not None:
            document.data = _Reader(document).value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        document.faults.append(ConfigProblem(line, "", f"this is not YAML: {error.problem}"))
    except yaml.YAMLError as error:
        document.faults.append(
            ConfigProblem(1, "", f"this is not YAML: {str(error).splitlines()[0]}")
        )
    except _TooManyError as error:
        document.faults.append(ConfigProblem(error.line, "", TOO_MANY))
    except RecursionError:
        document.faults.append(ConfigProblem(1, "", "this is nested too deeply"))
    return document


class _Reader:
    """Turns nodes into data, noting lines on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def value(self, node: Node, place: Place) -> Any:
        self._nodes += 1
        self._document.lines.setdefault(place, node.start_mark.line + 1)
        if len(place) > DEEPEST:
            self._fault(node, place, "is nested too deeply")
            return None
        if self._nodes > MOST_NODES:
            raise _TooManyError(node.start_mark.line + 1)
        if isinstance(node, MappingNode):
            return self._mapping(node, place)
        if isinstance(node, SequenceNode):
            return [self.value(each, (*place, at)) for at, each in enumerate(node.value)]
        return self._scalar(node, place)

    def _mapping(self, node: MappingNode, place: Place) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, int] = {}
        merged: list[Node] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                merged.append(value)
            elif not isinstance(key, ScalarNode):
                self._fault(key, place, "has a name that is not plain text")
            elif key.value in first:
                before = first[key.value]
                where = (*place, key.value)
                self._fault(key, where, f"is given twice; the first is on line {before}")
            else:
                first[key.value] = line
                self._document.lines[(*place, key.value)] = line
                data[key.value] = self.value(value, (*place, key.value))
        return self._with_merged(data, merged, place)

    def _with_merged(
        self, data: dict[str, Any], merged: list[Node], place: Place
    ) -> dict[str, Any]:
        for node in _each_merged(merged):
            inherited = self.value(node, place)
            if isinstance(inherited, dict):
                data = {**inherited, **data}
            else:
                self._fault(node, place, "merges (<<) something that has no fields")
        return data

    def _scalar(self, node: Node, place: Place) -> Any:
        try:
            return self._scalars.construct_object(node, deep=True)
        except yaml.constructor.ConstructorError:
            self._fault(node, place, f"uses the tag {node.tag}, which means nothing here")
        except (ValueError, OverflowError):
            self._fault(
                node, place, "looks like a date or a number but is none, such as 2027-13-01"
            )
        return None

    def _fault(self, node: Node, place: Place, sentence: str) -> None:
        fault = ConfigProblem(node.start_mark.line + 1, dotted(place), sentence)
        self._document.faults.append(fault)


def _each_merged(merged: list[Node]) -> Iterator[Node]:
    for node in merged:
        if isinstance(node, SequenceNode):
            yield from node.value
        else:
            yield node
