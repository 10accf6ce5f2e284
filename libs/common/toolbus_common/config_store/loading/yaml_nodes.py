"""Composition of YAML nodes with libyaml's parser if installed, which is five times as fast."""

from importlib import import_module

import yaml
from yaml.composer import Composer
from yaml.nodes import Node
from yaml.resolver import Resolver


class _Quick(Composer, Resolver):
    """Composer of libyaml's events in Python. libyaml's own composer crashes on deep nesting."""

    def __init__(self, text: str) -> None:
        Composer.__init__(self)
        Resolver.__init__(self)
        parser = import_module("yaml.cyaml").CParser(text)
        self.check_event = parser.check_event
        self.peek_event = parser.peek_event
        self.get_event = parser.get_event


def compose(text: str) -> Node | None:
    """Return the root node of a YAML text. Raises `yaml.YAMLError` or `RecursionError`.

    Every error is raised by the Python parser, so its message is the same with and without libyaml.
    """
    found: Node | None
    if yaml.__with_libyaml__:
        try:
            found = _Quick(text).get_single_node()
        except yaml.YAMLError:
            pass
        else:
            return found
    found = yaml.compose(text, Loader=yaml.SafeLoader)
    return found
