-- Which keys were made and revoked, and by whom.
-- since: DateTime = 90d | from when
SELECT at, event, key, JSONExtractString(detail, 'by') AS by, customer
FROM events
WHERE event IN ('key.created', 'key.revoked') AND at >= {since:DateTime}
ORDER BY at DESC
