"""Ejection of replicas that fail while other replicas succeed. The time is an argument."""

from enum import StrEnum

FAILURES = 3  # consecutive failures before an ejection
BASE, LONGEST = 10.0, 300.0  # seconds per counted ejection, and the maximum


class Place(StrEnum):
    """State of a replica: active, ejected (receives no calls), or on trial (one call at a time)."""

    IN = "active"
    EJECTED = "ejected"
    TRIAL = "on trial"


class Standing:
    """The state and the failures of one replica.

    Each ejection lasts longer than the previous one, unless the previous one was long ago.
    """

    __slots__ = ("_since", "ejections", "failures", "place", "until")

    def __init__(self) -> None:
        self.place = Place.IN
        self.failures = 0  # consecutive failures
        self.ejections = 0  # ejections that count for the duration of the next one
        self.until = 0.0
        self._since = 0.0

    def failed(self, now: float, *, may_go: bool) -> bool:
        """Record a failure, and return whether it ejected the replica.

        A replica is ejected only if `may_go` is set.
        """
        self.failures += 1
        if self.place is Place.EJECTED:
            return False
        if self.place is Place.IN and not (may_go and self.failures >= FAILURES):
            return False
        if self.place is Place.IN:
            self.ejections = max(0, self.ejections - int((now - self._since) / BASE))
        self.ejections += 1
        self.place, self.until = Place.EJECTED, now + min(LONGEST, BASE * self.ejections)
        return True

    def succeeded(self, now: float) -> bool:
        """Record a success, and return whether it ended a trial."""
        self.failures = 0
        if self.place is not Place.TRIAL:
            return False
        self.place, self._since = Place.IN, now
        return True

    def tried_again(self, now: float) -> bool:
        """Start the trial if the ejection is over, and return whether it started."""
        if self.place is not Place.EJECTED or now < self.until:
            return False
        self.place = Place.TRIAL
        return True


def may_go(out: int, replicas: int, others_in_place: int) -> bool:
    """Return whether another replica may be ejected.

    At most half of the replicas are ejected, and never the last active replica.
    """
    return out < replicas // 2 and others_in_place > 0
