"""How long facts are kept."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from toolbus_common.declared.basics import Declared

SHORTEST = 183  # days: half a year, which the EU's AI Act demands of those who deploy (Art. 26(6))
USUAL = 400
_DAYS = re.compile(r"(\d{1,5})d")


def _days(said: Any) -> Any:
    """`400d` as 400; what else it may be is told by the type."""
    found = _DAYS.fullmatch(said) if isinstance(said, str) else None
    return int(found[1]) if found else said


Retention = Annotated[int, Field(ge=SHORTEST, le=36_500), BeforeValidator(_days)]


class Audit(Declared):
    """`retention` is how long facts are kept (`400d`), unless their customer says otherwise."""

    retention: Retention = USUAL
