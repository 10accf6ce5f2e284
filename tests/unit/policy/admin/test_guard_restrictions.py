"""Guards configured over HTTP: they load no model, and their names are no paths of the API."""

from typing import Any

import pytest

from toolbus_common.config import Configuration
from toolbus_common.errors import InvalidConfigurationError
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions
from toolbus_policy.admin.request_parser import with_entry


def configured(**options: Any) -> Configuration:
    guard = {"kind": "pii", "on": ["results"], "options": {"models": True, **options}}
    return Configuration.model_validate({"guards": {"names": guard}})


def violated(old: Configuration, new: Configuration) -> list[str]:
    return [each["location"] for each in RemoteRestrictions().violations(old, new)]


def test_a_model_is_loaded_only_from_the_operators_file() -> None:
    mine = configured(model="/srv/models/one")
    assert violated(Configuration(), configured()) == []
    assert violated(Configuration(), mine) == ["guards.names.options.model"]
    assert violated(mine, configured(model="/tmp/two")) == ["guards.names.options.model"]
    assert violated(mine, configured(model="/srv/models/one", language="de")) == []


def test_the_name_of_the_coverage_is_not_that_of_a_guard() -> None:
    guard = {"kind": "secrets", "on": ["results"], "always": True}
    with pytest.raises(InvalidConfigurationError, match="reserved"):
        with_entry(Configuration(), "guards", "coverage", guard)
