"""Egress: which addresses may be called, decided once a name is resolved and before anything is."""

from toolbus_common.egress.allowed import Allowed
from toolbus_common.egress.checking import Egress
from toolbus_common.egress.targets import EgressError, Target, as_http, target_of

__all__ = ["Allowed", "Egress", "EgressError", "Target", "as_http", "target_of"]
