-- All events of one call, in order.
-- call: String | the call's id
SELECT at, event, key, server, tool, code, reason, rule, approval, charge / 1e6 AS dollars,
    latency_us / 1e3 AS ms, detail
FROM events
WHERE call_id = {call:String} OR parent_id = {call:String}
ORDER BY at, stream_seq, line
