"""Rules on calls, in Cedar: read, checked, compiled and decided. Pure: no clock, no I/O."""

from toolbus_common.rules.decision import SILENT, Verdict
from toolbus_common.rules.parser import RuleError, policies
from toolbus_common.rules.policy_set import Rulebook, Slice
from toolbus_common.rules.request import Asker, Case, labels_of
from toolbus_common.rules.schema import faults, named

__all__ = [
    "SILENT",
    "Asker",
    "Case",
    "RuleError",
    "Rulebook",
    "Slice",
    "Verdict",
    "faults",
    "labels_of",
    "named",
    "policies",
]
