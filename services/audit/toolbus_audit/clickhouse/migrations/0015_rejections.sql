-- Requests rejected because of their credentials: one row per client address, entrance, code and
-- minute. `address` is empty when too many addresses were rejected to count each.
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
