-- Requests that were rejected for their credentials: an event per client address, entrance and reason
-- a minute. `address` is empty where too many came to tell them apart.
CREATE VIEW IF NOT EXISTS rejections AS
SELECT
    at,
    toDateTime64(JSONExtractFloat(detail, 'since'), 3, 'UTC') AS since,
    customer,
    JSONExtractString(detail, 'entrance') AS entrance,
    code,
    JSONExtractString(detail, 'address') AS address,
    JSONExtractUInt(detail, 'count') AS requests
FROM events
WHERE event = 'access.rejected';
