"""The buckets that supervisors of servers write to."""

from dataclasses import dataclass

from toolbus_common.nats.kv_bucket import Bucket


@dataclass(frozen=True, slots=True)
class Buckets:
    """Buckets that the supervisors write to."""

    catalogue: Bucket
    leases: Bucket
    pins: Bucket
