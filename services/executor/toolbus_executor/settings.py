"""What executor is told by its environment."""

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """The shared settings; servers come from the declared configuration."""
