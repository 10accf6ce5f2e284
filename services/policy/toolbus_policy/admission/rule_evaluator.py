"""What the rules say of a call: the slice of its case is kept while the configuration lasts."""

from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Configuration, Rule
from toolbus_common.contracts import CallRequested
from toolbus_common.rules import Asker, Case, Rulebook, Slice, Verdict, labels_of
from toolbus_policy.admission.plan_cache import Memory

MOST_REMEMBERED = 50_000


class Ruling:
    """The compiled rules, asked about the calls under one declaration."""

    def __init__(self, book: Rulebook, declared: Configuration) -> None:
        self.declared = declared
        self._book = book
        # A key's number is that of all keys like it to the rules.
        self._alike = Memory[str, int](MOST_REMEMBERED)
        self._askers: dict[Asker, int] = {}
        self._slices: dict[tuple[int, str, str, str, str], Slice] = {}

    def verdict(self, call: CallRequested, key: Principal, charge: int, now: float) -> Verdict:
        """What the rules say of this call of a key, at this price."""
        try:
            alike = self._alike.recall(key.key, key)
        except KeyError:
            alike = self._alike.keep(key.key, key, self._number(key))
        about = (alike, call.server, call.method, call.tool, call.family)
        part = self._slices.get(about)
        if part is None:
            if len(self._slices) >= MOST_REMEMBERED:
                self._slices.clear()
            part = self._slices[about] = self._book.slice(self._case(call, key, charge))
        return part.decide(call.arguments, now)

    def _number(self, key: Principal) -> int:
        return self._askers.setdefault(self._asker(key), len(self._askers))

    def _asker(self, key: Principal) -> Asker:
        told, own = key.key if self._book.names_keys else "", key.own
        return Asker(told, own.team, own.user, _customer(key), key.environment)

    def _case(self, call: CallRequested, key: Principal, charge: int) -> Case:
        labels = labels_of(full_name(call.server, call.tool), self.declared)
        return Case(
            self._asker(key), call.method, call.server, call.tool, labels, charge, call.family.value
        )


class Rulings:
    """Compiles the rules when they change, and only then."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._book = Rulebook({})
        self._newest: Ruling | None = None

    def of(self, snapshot: ConfigSnapshot) -> Ruling | None:
        """The rules of a snapshot; None when it has none."""
        rules = snapshot.declaration.rules
        if rules is not self._rules and list(rules.items()) != list(self._rules.items()):
            self._book = Rulebook(rules)
        self._rules = rules
        if not rules:
            self._newest = None
        elif self._newest is None or self._newest.declared is not snapshot.declaration:
            self._newest = Ruling(self._book, snapshot.declaration)
        return self._newest


def _customer(principal: Principal) -> str:
    named = (told.partition(":") for told, _ in principal.levels)
    return next((name for kind, _, name in named if kind == "customer"), "")
