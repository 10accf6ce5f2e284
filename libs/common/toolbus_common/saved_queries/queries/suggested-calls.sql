-- Tool calls that a model suggested, and the model response that led to each of them.
-- call: String = % | the id of the tool call, or a pattern with %
-- since: DateTime = 24h | start of the period
SELECT at, call_id, server, tool, if(event = 'call.denied', code, 'allowed') AS decision,
    suggested_by, provider, model, alias, finish_reason, suggested_at, key
FROM suggested_calls
WHERE call_id LIKE {call:String} AND at >= {since:DateTime}
ORDER BY at, call_id
