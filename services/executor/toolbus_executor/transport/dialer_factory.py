"""Dialers of this executor's servers, from its settings and the operator's configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from toolbus_common.config import Server
from toolbus_common.config.servers.server import FILES
from toolbus_common.config_store.operator_targets import ConfirmedTargets
from toolbus_common.egress import Egress
from toolbus_common.egress.policy import STRICT
from toolbus_common.egress.tls import Tls
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.identity.header import Identity
from toolbus_executor.identity.keys import IdentityKeys
from toolbus_executor.transport.dialer import Dialer


@dataclass(frozen=True, slots=True)
class DialerFactory:
    """Factory of dialers.

    `ca` is a file of certificate authorities for all servers. `environ` can configure proxies.
    """

    egress: Egress = STRICT
    named: ConfirmedTargets = field(default_factory=ConfirmedTargets)
    ca: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    keys: IdentityKeys = field(default_factory=IdentityKeys)
    whole: Server | None = None  # for dialers of replicas: the server that the operator configured

    def for_replicas_of(self, whole: Server) -> "DialerFactory":
        """Return the factory of dialers for the replicas of a server."""
        return replace(self, whole=whole)

    def to(self, declared: Server, proxy: str) -> Dialer:
        """Return the dialer of a server. `proxy` is the configured proxy, including its secrets.

        Raises:
            UpstreamDeadError: the server refers to local files, and the operator did not configure
                it.

        """
        whole = self.whole or declared
        if any(getattr(declared, name) for name in FILES) and not self.named.has(whole):
            raise UpstreamDeadError(
                "Its 'ca', 'certificate' and 'key' are files, which only an operator may "
                "configure; configure the server with 'toolbus apply'."
            )
        tls = Tls(self.ca, declared.ca, declared.certificate, declared.key)
        identity_settings = declared.identity
        identity = (
            Identity(identity_settings.header, self.keys) if identity_settings is not None else None
        )
        named = partial(self.named.has, whole)
        return Dialer(self.egress, named, proxy, tls, self.environ, identity=identity)
