"""Ejection of replicas that fail while others succeed. The time is an argument (no clock)."""

from enum import StrEnum

FAILURES = 3  # in a row
BASE, LONGEST = 10.0, 300.0  # seconds: the base for each ejection that counts


class Place(StrEnum):
    """State of a replica: active, ejected (no calls), or on trial (one call at a time)."""

    IN = "active"
    EJECTED = "ejected"
    TRIAL = "on trial"


class Standing:
    """The state of one replica.

    Each ejection lasts longer than the previous one, unless that was long ago.
    """

    __slots__ = ("_since", "ejections", "failures", "place", "until")

    def __init__(self) -> None:
        self.place = Place.IN
        self.failures = 0  # in a row
        self.ejections = 0  # that still count
        self.until = 0.0
        self._since = 0.0

    def failed(self, now: float, *, may_go: bool) -> bool:
        """Record a failure; return whether it ejected the replica, if `may_go` allows it."""
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
        """Record a success; return whether it ended a trial."""
        self.failures = 0
        if self.place is not Place.TRIAL:
            return False
        self.place, self._since = Place.IN, now
        return True

    def tried_again(self, now: float) -> bool:
        """Start a trial if its time has come; return whether it started."""
        if self.place is not Place.EJECTED or now < self.until:
            return False
        self.place = Place.TRIAL
        return True


def may_go(out: int, replicas: int, others_in_place: int) -> bool:
    """Return whether one more may be ejected: at most half, and never the last active one."""
    return out < replicas // 2 and others_in_place > 0
