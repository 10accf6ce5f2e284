"""What codemode is told by its environment: so far only what every room is told."""

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """Nothing of its own yet."""
