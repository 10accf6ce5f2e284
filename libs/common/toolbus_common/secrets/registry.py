"""All kinds of stores and key services, each made when first asked; those of others are extras."""

from collections.abc import Mapping

from toolbus_common.secrets.base import Store
from toolbus_common.secrets.key_service import KeyService
from toolbus_common.secrets.stores.aws import Amazon, AmazonKeys
from toolbus_common.secrets.stores.azure import Azure, AzureKeys
from toolbus_common.secrets.stores.gcp import Google, GoogleKeys
from toolbus_common.secrets.stores.local import Environment, Files, Unopened
from toolbus_common.secrets.stores.vault import HashiCorp, HashiCorpKeys


def stores_of(environ: Mapping[str, str]) -> dict[str, Store]:
    """The stores a reference may name; `environ` says where they are and who asks."""
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
    """The key services that may keep a master key from being read where it is stored."""
    return {
        "vault-transit": HashiCorpKeys(environ),
        "aws-kms": AmazonKeys(),
        "gcp-kms": GoogleKeys(),
        "azure-key": AzureKeys(),
    }
