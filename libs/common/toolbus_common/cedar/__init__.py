"""Rules on calls, in Cedar: read, checked, compiled and decided. Pure: no clock, no I/O."""

from toolbus_common.cedar.case import Asker, Case, labels_of
from toolbus_common.cedar.rulebook import Rulebook, Slice
from toolbus_common.cedar.schema import faults, named
from toolbus_common.cedar.text import RuleError, policies
from toolbus_common.cedar.verdict import SILENT, Verdict

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
