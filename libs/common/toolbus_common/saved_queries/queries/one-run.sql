-- Calls of one run in order, with tokens and dollars, and the calls that its models suggested.
-- run: String | the run: the trace id of its calls, or the id of a run of agent mode
-- since: DateTime = 30d | start of the period
SELECT min(at) AS started, any(u.kind) AS kind, any(u.server) AS server, any(u.tool) AS tool,
    multiIf(max(u.denied) > 0, 'denied', max(u.failed) > 0, 'failed', max(u.calls) > 0, 'completed', 'open')
        AS state,
    max(u.code) AS code, max(latency_us) / 1e3 AS ms, sum(charge) / 1e6 AS dollars,
    sum(u.input_tokens) AS input_tokens, sum(u.output_tokens) AS output_tokens,
    any(u.key) AS key, max(u.team) AS team, max(u.user) AS user, call_id, any(s.suggested_by) AS suggested_by
FROM usage AS u
LEFT JOIN
(
    SELECT events.call_id AS linked, max(events.suggested_by) AS suggested_by
    FROM events
    WHERE events.suggested_by != '' AND at >= {since:DateTime}
    GROUP BY linked
) AS s ON u.call_id = s.linked
WHERE (run = {run:String} OR parent_id = {run:String} OR call_id = {run:String} OR s.suggested_by IN (SELECT call_id FROM usage WHERE run = {run:String} AND at >= {since:DateTime}))
    AND at >= {since:DateTime}
GROUP BY call_id
ORDER BY started
