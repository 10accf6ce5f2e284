"""Rules about calls in Cedar: parsing, validation and evaluation, without clock or I/O."""

from toolbus_common.rules.decision import SILENT, Verdict
from toolbus_common.rules.parser import RuleError, policies
from toolbus_common.rules.policy_set import Rulebook, Slice
from toolbus_common.rules.request import Asker, Case, labels_of
from toolbus_common.rules.schema import MOST_PROBLEMS, named, problems

__all__ = [
    "MOST_PROBLEMS",
    "SILENT",
    "Asker",
    "Case",
    "RuleError",
    "Rulebook",
    "Slice",
    "Verdict",
    "labels_of",
    "named",
    "policies",
    "problems",
]
