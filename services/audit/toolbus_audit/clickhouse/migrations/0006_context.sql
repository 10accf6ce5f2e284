-- Tokens per day: the cost of listing every definition (`classic_tokens`, one row per server) and
-- the cost of code mode (`spent_tokens`, in the rows of the server `toolbus`).
CREATE VIEW IF NOT EXISTS context_by_day AS
SELECT
    toDate(at) AS day,
    customer,
    key,
    tupleElement(cost, 1) AS server,
    count() AS calls,
    sum(tupleElement(cost, 2)) AS classic_tokens,
    sum(tupleElement(cost, 3)) AS spent_tokens
FROM
(
    SELECT
        at,
        customer,
        key,
        arrayJoin(arrayConcat(
            arrayMap(
                each -> (tupleElement(each, 1), tupleElement(each, 2), toInt64(0)),
                JSONExtractKeysAndValues(detail, 'classic', 'Int64')
            ),
            [(
                toString(events.server),
                toInt64(0),
                JSONExtractInt(detail, 'own_tokens') + JSONExtractInt(detail, 'request_tokens')
                    + JSONExtractInt(detail, 'answer_tokens')
            )]
        )) AS cost
    FROM events
    WHERE event = 'context.spent'
)
GROUP BY day, customer, key, server;

-- The token count of each tool's definition, as last measured.
CREATE VIEW IF NOT EXISTS context_definitions AS
SELECT
    of_server AS server,
    tupleElement(counted, 1) AS tool,
    tupleElement(counted, 2) AS tokens,
    counted_by
FROM
(
    SELECT
        events.server AS of_server,
        arrayJoin(argMax(JSONExtractKeysAndValues(detail, 'tools', 'Int64'), at)) AS counted,
        argMax(JSONExtractString(detail, 'counted_by'), at) AS counted_by
    FROM events
    WHERE event = 'context.measured'
    GROUP BY of_server
);
