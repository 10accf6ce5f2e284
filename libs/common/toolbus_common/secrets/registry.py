"""Registry of secret stores and key services. Their libraries are optional dependencies."""

from collections.abc import Mapping

from toolbus_common.secrets.base import Store
from toolbus_common.secrets.key_service import KeyService
from toolbus_common.secrets.stores.aws import Amazon, AmazonKeys
from toolbus_common.secrets.stores.azure import Azure, AzureKeys
from toolbus_common.secrets.stores.gcp import Google, GoogleKeys
from toolbus_common.secrets.stores.local import Environment, Files, Unopened
from toolbus_common.secrets.stores.vault import HashiCorp, HashiCorpKeys


def stores_of(environ: Mapping[str, str]) -> dict[str, Store]:
    """Return all secret stores, by their name in references.

    `environ` contains their addresses and credentials.
    """
    return {
        "env": Environment(environ),
        "file": Files(),
        "vault": HashiCorp(environ),
        "aws": Amazon(),
        "gcp": Google(),
        "azure": Azure(),
        "sealed": Unopened(),
    }


def key_services_of(environ: Mapping[str, str]) -> dict[str, KeyService]:
    """Return all key services that can wrap a master key, by their name in references."""
    return {
        "vault-transit": HashiCorpKeys(environ),
        "aws-kms": AmazonKeys(),
        "gcp-kms": GoogleKeys(),
        "azure-key": AzureKeys(),
    }
