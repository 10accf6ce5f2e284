"""When a replica takes no calls because the others do better: pure, with the time passed in."""

from enum import StrEnum

FAILURES = 3  # in a row
BASE, LONGEST = 10.0, 300.0  # seconds out of place: the base for each ejection not yet forgiven


class Place(StrEnum):
    """In place it takes calls, ejected none, on trial one at a time until one succeeds."""

    IN = "in place"
    EJECTED = "ejected"
    TRIAL = "on trial"


class Standing:
    """How one replica does: ejected for longer each time, and forgiven that as time passes."""

    __slots__ = ("_since", "ejections", "failures", "place", "until")

    def __init__(self) -> None:
        self.place = Place.IN
        self.failures = 0  # in a row
        self.ejections = 0  # not forgiven yet
        self.until = 0.0
        self._since = 0.0

    def failed(self, now: float, *, may_go: bool) -> bool:
        """Take a failure; True when it ejected the replica, which others must let happen."""
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
        """Take a success; True when it ended a trial. One begun before an ejection ends none."""
        self.failures = 0
        if self.place is not Place.TRIAL:
            return False
        self.place, self._since = Place.IN, now
        return True

    def tried_again(self, now: float) -> bool:
        """Go on trial if it is time; whether it was."""
        if self.place is not Place.EJECTED or now < self.until:
            return False
        self.place = Place.TRIAL
        return True


def may_go(out: int, replicas: int, others_in_place: int) -> bool:
    """Whether one more may be ejected: at most half of all are, and never the last in place."""
    return out < replicas // 2 and others_in_place > 0
