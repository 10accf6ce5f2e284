"""Terms of the response cache for a payer: who shares its responses, and the embedding's price."""

from toolbus_common.access.anonymous import ANONYMOUS
from toolbus_common.access.model_grants import may_use_model, may_use_provider
from toolbus_common.access.session_owner import digest_of
from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Configuration, ResponseCache
from toolbus_common.contracts.model_calls import SEPARATOR, CacheTerms, model_name
from toolbus_policy.ledger.admitted_call import Payer
from toolbus_policy.models.prices import micro_dollars_of, price_of

_NARROWEST_FIRST = ("off", "key", "user", "team", "customer")
OFF = _NARROWEST_FIRST[0]


def cache_terms_of(
    declared: Configuration, payer: Payer, provider: str, model: str
) -> CacheTerms | None:
    """Return the terms of a model's cached responses; None if they must not be cached.

    An anonymous caller shares its responses with no one, because it has no level that could narrow
    the scope.
    """
    cache = declared.providers[provider].cache
    if cache is None or not granted(cache.models, model) or payer.key == ANONYMOUS:
        return None
    scope = _scope_of(payer, cache)
    if not scope:
        return None
    return CacheTerms(scope, _embedding_price(declared, payer, cache))


def _scope_of(payer: Payer, cache: ResponseCache) -> str:
    """Return the callers that share a response; empty for none.

    A caller without a team or user has the next narrower scope.
    """
    levels = [level.cache_scope for _, level in payer.principal.levels]
    widest = min((cache.scope, *filter(None, levels)), key=_NARROWEST_FIRST.index)
    if widest == OFF:
        return ""
    if widest == "customer":
        return f"customer:{payer.customer}"
    if widest == "team" and payer.team:
        return f"team:{payer.team}"
    if widest in ("team", "user") and payer.user:
        return f"user:{payer.user}"
    # A key that is created again under the same name is another caller.
    own = payer.principal.own
    return f"key:{payer.key}:{digest_of(payer.key, own.secret_hash)}"


def _embedding_price(
    declared: Configuration, payer: Payer, cache: ResponseCache
) -> tuple[float, ...] | None:
    """Return the price of embeddings; None if similar requests must not be compared.

    The caller needs the same permission as for its own request to the embedding model.
    """
    if cache.semantic is None:
        return None
    provider, _, model = cache.semantic.embeddings.partition(SEPARATOR)
    if not provider:
        return ()
    if provider not in declared.providers:
        return None
    principal = payer.principal
    permitted = may_use_provider(principal, declared.providers[provider])
    if not permitted or not may_use_model(principal, model_name(provider, model)):
        return None
    price = price_of(declared, provider, model)
    return None if price is None else micro_dollars_of(price)
