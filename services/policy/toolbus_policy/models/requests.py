"""Terms of a model for a payer, and the admission of one request by its size (no I/O)."""

import re
from dataclasses import replace
from math import ceil

from msgspec import DecodeError

from toolbus_common.access.model_grants import may_use_model, may_use_provider, names_of
from toolbus_common.access.oauth_scopes import needed
from toolbus_common.access.pricing import FREE, Cost
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallRequested
from toolbus_common.contracts.model_calls import (
    COUNT_TOKENS,
    EMBEDDINGS,
    ModelCall,
    decode_model_call,
    model_name,
)
from toolbus_common.errors import (
    InsufficientScopeError,
    InvalidError,
    ToolbusError,
    UnknownModelError,
)
from toolbus_policy.ledger.admitted_call import Admission, ModelSize, ModelTerms, Payer
from toolbus_policy.models.cache_terms import cache_terms_of
from toolbus_policy.models.prices import micro_dollars_of, price_of
from toolbus_policy.models.references import names_content

BYTES_PER_TOKEN = (
    3  # fewer than tokenizers need for most text, so that the bound is seldom exceeded
)
# How a body can name a cache of one hour: the value `1h`, also with escaped characters.
_HOUR = re.compile(rb'"(?:1|\\u0031)(?:h|\\u0068)"')
_BASE_PRICES = 6  # of every model; those of caches of one hour, audio and images may follow
# How a body can name audio or images: these letters, a file, a document or content that the
# provider stores (all can contain them), or any escaped letter.
_MEDIA = re.compile(
    rb'audio|image|"(?:(?:input_)?file|document")|'
    rb'"previous_response_id"|"conversation"|"prompt"|\\u00'
)
MAX_OUTPUT = 100_000_000  # tokens: a charge remains exact in every counter


def terms_of(declared: Configuration, payer: Payer, provider: str, model: str) -> ModelTerms:
    """Return the terms of a model.

    Without a grant, or if a level does not permit the provider's region or labels, the terms have
    no names.
    """
    every = tuple(names_of(declared, provider, model))
    price = price_of(declared, provider, model)
    permitted = may_use_provider(payer.principal, declared.providers[provider])
    cache = cache_terms_of(declared, payer, provider, model)
    return ModelTerms(
        provider=declared.providers[provider],
        name=model_name(provider, model),
        names=frozenset(
            name for name in every if permitted and may_use_model(payer.principal, name)
        ),
        prices=None if price is None else micro_dollars_of(price),
        budgets=tuple(each for each in payer.budgets if each.counts_model(every, 1)),
        cache=cache.encode() if cache is not None else "",
        embedding=(cache.embedding or ()) if cache is not None else (),
        aliases=every[1:],
    )


def sized(admission: Admission, terms: ModelTerms, call: CallRequested) -> Admission:
    """Return the admission of one model request, with the most that it can cost.

    Counting tokens costs nothing. A provider can bill more than the reserved amount; the excess is
    a debt of the budgets.

    Raises:
        InvalidError: `extra` is not a `ModelCall`, a bound is invalid, or the request has an
            idempotency key, or the server may not sample this model.
        UnknownModelError: the name is unknown, not granted or not in `restriction` (the same
            error), or the model has no price.
        InsufficientScopeError: the model is granted, but this access token has a smaller scope.

    """
    requested = _requested(call)
    name = requested.alias or terms.name
    if not all(granted(patterns, name) for patterns in call.restriction):
        raise unknown_error(name)
    if name not in terms.names:
        raise _denial(admission.payer.principal, call, name)
    if terms.prices is None:
        raise UnknownModelError(
            f"The model '{terms.name}' has no price, so it is refused. Add it to model_prices, or "
            f"set 'unpriced: true' for the provider '{call.server}' if it costs nothing."
        )
    size = ModelSize(
        alias=requested.alias,
        input=_input_bound(call, terms),
        output=_output_bound(requested, terms, call.method),
        tools=requested.tools,
        stream=requested.stream,
        region=terms.provider.region,
        labels=terms.provider.labels,
        sampled_by=requested.sampled_by,
    )
    cost = FREE if call.method == COUNT_TOKENS else _cost(terms, size, call)
    budgets = terms.budgets
    if not cost.reserved:
        budgets = tuple(each for each in budgets if not each.in_money)
    cause = _sampling_cause(admission.payer.principal.declared, requested, name)
    return replace(admission, cost=cost, budgets=budgets, size=size, cause=cause)


def unknown_error(name: str) -> UnknownModelError:
    """Return the error for an unknown name. Hidden names have the same error."""
    return UnknownModelError(f"Unknown model: '{name}'. GET /v1/models lists the models.")


def _requested(call: CallRequested) -> ModelCall:
    """Return the fields that ingress has read from the request."""
    if call.idempotency_key:
        raise InvalidError(
            "Model requests do not support idempotency keys; remove the idempotency key."
        )
    try:
        requested = decode_model_call(call.extra)
    except DecodeError as error:
        raise InvalidError(
            "The model request has no valid description of its size; send it to an endpoint of "
            "the models API."
        ) from error
    if (requested.output or 0) < 0 or requested.choices < 1 or requested.tools < 0:
        raise InvalidError(
            "The limit of output tokens, the number of choices or the number of tools is "
            "negative or zero; correct the request."
        )
    return requested


def _sampling_cause(declared: Configuration, requested: ModelCall, name: str) -> str:
    """Return the cause of the approval that a sampling request needs; empty for none.

    Raises:
        InvalidError: the server's sampling requests are not answered by this model.

    """
    if not requested.sampled_by:
        return ""
    server = declared.servers.get(requested.sampled_by)
    sampling = server.sampling if server is not None else None
    if sampling is None or sampling.model != name:
        raise InvalidError(
            f"The sampling requests of the server '{requested.sampled_by}' are not answered by "
            f"the model '{name}'; set servers.{requested.sampled_by}.sampling."
        )
    return f"server:{requested.sampled_by}" if sampling.approve else ""


def _denial(principal: Principal, call: CallRequested, name: str) -> ToolbusError:
    """Return the error for a denied name.

    The error shows that the model exists only if the caller may use it with another token.
    """
    whole, declared = principal.whole, principal.declared
    exists = name in names_of(declared, call.server, call.tool)
    exists = exists and may_use_provider(principal, declared.providers[call.server])
    if not exists or whole is None or not may_use_model(whole, name):
        return unknown_error(name)
    scope = needed(declared, principal.token_scope, name, "models")
    return InsufficientScopeError(
        f"The access token's scope does not include the model '{name}'; sign in again with scope "
        f"'{scope}'.",
        scope=scope,
    )


def _input_bound(call: CallRequested, terms: ModelTerms) -> int:
    """Return the maximum of input tokens."""
    if call.method == COUNT_TOKENS:
        return 0
    most = terms.provider.max_input
    if names_content(call.arguments, terms.provider):
        return most
    return min(ceil(len(call.arguments) / BYTES_PER_TOKEN), most)


def _output_bound(requested: ModelCall, terms: ModelTerms, method: str) -> int:
    """Return the maximum of output tokens. Some providers treat a limit of zero as no limit."""
    if method in (COUNT_TOKENS, EMBEDDINGS):
        return 0
    bound = requested.output or terms.provider.max_output * requested.choices
    if bound > MAX_OUTPUT:
        raise InvalidError(
            f"The request permits {bound} output tokens, and at most {MAX_OUTPUT} are supported; "
            "lower the limit of output tokens or the number of choices."
        )
    return bound


def _cost(terms: ModelTerms, size: ModelSize, call: CallRequested) -> Cost:
    """Return the most that a request can cost, with the embedding of its text for the cache."""
    prices = terms.prices
    if prices and len(prices) == _BASE_PRICES + 1 and _HOUR.search(call.arguments) is None:
        prices = prices[:_BASE_PRICES]
    bounds = prices
    if prices and len(prices) > _BASE_PRICES + 1:
        has_hour, has_media = _HOUR.search(call.arguments), _MEDIA.search(call.arguments)
        hour = prices[_BASE_PRICES] if has_hour else prices[2]
        bounds = (*prices[:_BASE_PRICES], hour, *(prices[_BASE_PRICES + 1 :] if has_media else ()))
    exact = _most(bounds, size.input, size.output) if bounds else 0.0
    if terms.embedding:
        exact += _most(terms.embedding, size.input, 0)
    return Cost(ceil(round(exact, 6)), prices or ()) if exact or prices else FREE


def _most(prices: tuple[float, ...], input_tokens: int, output_tokens: int) -> float:
    fresh, cached, written, output, reasoning, request, *more = prices
    return (
        input_tokens * max(fresh, cached, written, *more[:3])
        + output_tokens * max(output, reasoning, *more[3:])
        + request
    )
