"""Outbound connections: the configuration of deliveries, and the clients they share."""

from dataclasses import dataclass

from toolbus_audit.delivery.webhook_poster import WebhookPoster
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.config import Configuration
from toolbus_common.config_store.operator_targets import ConfirmedTargets
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.secrets import Secrets


@dataclass(frozen=True, slots=True)
class Outbound:
    """Configuration of deliveries to other systems, and the clients for them."""

    config: ConfigView
    operator_named: ConfirmedTargets
    http: HttpClient
    webhooks: WebhookPoster
    secrets: Secrets

    @property
    def configuration(self) -> Configuration:
        """Current configuration."""
        return self.config.now.configuration
