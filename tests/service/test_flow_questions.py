"""Evidence of information flow: the view of decisions, and the questions about them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from helpers.audit_store import add, allowed, ask, migrated, part, query
