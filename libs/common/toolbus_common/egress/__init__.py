"""Egress control: permitted addresses of connections, checked after name resolution."""

from toolbus_common.egress.allow_list import Allowed
from toolbus_common.egress.policy import Egress
from toolbus_common.egress.url_target import EgressError, Target, as_http, target_of

__all__ = ["Allowed", "Egress", "EgressError", "Target", "as_http", "target_of"]
