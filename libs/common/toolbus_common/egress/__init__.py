"""Egress: which addresses may be called, decided once a name is resolved and before anything is."""

from toolbus_common.egress.checking import Egress
from toolbus_common.egress.listing import Listing
from toolbus_common.egress.targets import EgressError, Target, target_of

__all__ = ["Egress", "EgressError", "Listing", "Target", "target_of"]
