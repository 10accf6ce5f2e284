-- Keys created and revoked, with the operator.
-- since: DateTime = 90d | start of the period
SELECT at, event, key, JSONExtractString(detail, 'by') AS by, customer
FROM events
WHERE event IN ('key.created', 'key.revoked') AND at >= {since:DateTime}
ORDER BY at DESC
