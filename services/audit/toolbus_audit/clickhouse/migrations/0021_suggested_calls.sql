-- The model request whose response suggested a call. Ingress has verified that it was a request of
-- the same key; empty if the caller named none.
ALTER TABLE events ADD COLUMN IF NOT EXISTS suggested_by String AFTER parent_id;

-- Tool calls that a model suggested, one row each, with the model request that suggested them.
CREATE VIEW IF NOT EXISTS suggested_calls AS
SELECT
    calls.at AS at,
    calls.customer AS customer,
    calls.key AS key,
    calls.call_id AS call_id,
    calls.server AS server,
    calls.tool AS tool,
    calls.event AS event,
    calls.code AS code,
    calls.suggested_by AS suggested_by,
    models.provider AS provider,
    models.model AS model,
    models.alias AS alias,
    models.finish_reason AS finish_reason,
    models.at AS suggested_at
FROM
(
    SELECT at, events.customer AS customer, events.key AS key, events.call_id AS call_id,
        events.server AS server, events.tool AS tool, events.event AS event, events.code AS code,
        events.suggested_by AS suggested_by
    FROM events
    WHERE events.suggested_by != ''
) AS calls
LEFT JOIN
(
    SELECT at, model_requests.customer AS customer, model_requests.key AS key,
        model_requests.call_id AS call_id, provider, model, alias, finish_reason
    FROM model_requests
    WHERE call_id IN (SELECT events.suggested_by FROM events WHERE events.suggested_by != '')
) AS models
ON calls.suggested_by = models.call_id AND calls.customer = models.customer
    AND calls.key = models.key;
