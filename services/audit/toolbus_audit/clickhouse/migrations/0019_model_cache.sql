-- Savings of the cache of model responses, as a materialized column (see migration 18).
ALTER TABLE events ADD COLUMN IF NOT EXISTS saved Int64 MATERIALIZED
    if(event = 'model.used', simpleJSONExtractInt(detail, 'saved'), 0);

-- As in migration 18, with the use of the cache. `cache` is hit, semantic-hit, miss or empty; a response
-- from the cache has no tokens, no charge of a provider and no rate. `input_tokens` includes `cached_tokens` and
-- `cache_write_tokens`; `output_tokens` includes `reasoning_tokens`. `tokens_per_second` is the rate
-- of the output after its first token; it is NULL if the response was not streamed.
CREATE OR REPLACE VIEW model_requests AS
SELECT
    at,
    events.customer AS customer,
    events.key AS key,
    events.call_id AS call_id,
    events.parent_id AS parent_id,
    events.trace_id AS trace_id,
    events.server AS provider,
    events.tool AS model,
    JSONExtractString(detail, 'alias') AS alias,
    JSONExtractString(detail, 'provider_kind') AS provider_kind,
    events.method AS method,
    simpleJSONExtractBool(detail, 'streamed') AS streamed,
    events.charge AS charge,
    events.input_tokens AS input_tokens,
    events.cached_tokens AS cached_tokens,
    simpleJSONExtractInt(detail, 'cache_write_tokens') AS cache_write_tokens,
    events.output_tokens AS output_tokens,
    simpleJSONExtractInt(detail, 'reasoning_tokens') AS reasoning_tokens,
    simpleJSONExtractBool(detail, 'estimated') AS estimated,
    simpleJSONExtractInt(detail, 'attempt') AS attempt,
    simpleJSONExtractInt(detail, 'first_token_us') AS first_token_us,
    events.latency_us AS latency_us,
    if(
        first_token_us > 0 AND events.latency_us > first_token_us AND events.output_tokens > 0,
        events.output_tokens * 1e6 / (events.latency_us - first_token_us),
        NULL
    ) AS tokens_per_second,
    JSONExtractString(detail, 'finish_reason') AS finish_reason,
    simpleJSONExtractBool(detail, 'cut') AS cut,
    simpleJSONExtractInt(detail, 'tools_offered') AS tools_offered,
    simpleJSONExtractInt(detail, 'tools_suggested') AS tools_suggested,
    JSONExtractString(detail, 'cache') AS cache,
    events.saved AS saved,
    simpleJSONExtractInt(detail, 'saved_tokens') AS saved_tokens
FROM events
WHERE event = 'model.used';
