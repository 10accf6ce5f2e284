"""The ways to all servers of this executor: what its settings say, and what the operator named."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from toolbus_common.config import Server
from toolbus_common.config.servers.server import FILES
from toolbus_common.config_store.operator_targets import Named
from toolbus_common.egress import Egress
from toolbus_common.egress.policy import STRICT
from toolbus_common.egress.tls import Tls
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.identity.header import Identity
from toolbus_executor.identity.keys import IdentityKeys
from toolbus_executor.transport.dialer import Way


@dataclass(frozen=True, slots=True)
class Ways:
    """`ca` is a file of authorities for every server, `environ` may name proxies."""

    egress: Egress = STRICT
    named: Named = field(default_factory=Named)
    ca: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    keys: IdentityKeys = field(default_factory=IdentityKeys)
    whole: Server | None = None  # whose replicas these ways lead to: the word is on all of it

    def to_replicas_of(self, whole: Server) -> "Ways":
        """The ways to each of a server's replicas."""
        return replace(self, whole=whole)

    def to(self, declared: Server, proxy: str) -> Way:
        """The way to a server; `proxy` is its declared one, its references filled in.

        Raises:
            UpstreamDeadError: it names files of this machine, and it was not the operator who did.

        """
        whole = self.whole or declared
        if any(getattr(declared, name) for name in FILES) and not self.named.has(whole):
            raise UpstreamDeadError(
                "Its ca, certificate and key are files, which only the operator may name; apply "
                "its declaration with 'toolbus apply'."
            )
        tls = Tls(self.ca, declared.ca, declared.certificate, declared.key)
        told = declared.identity
        identity = Identity(told.header, self.keys) if told is not None else None
        named = partial(self.named.has, whole)
        return Way(self.egress, named, proxy, tls, self.environ, identity=identity)
