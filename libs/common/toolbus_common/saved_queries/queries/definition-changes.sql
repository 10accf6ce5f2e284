-- Definitions that changed after their approval or were flagged for their text, with the decisions about them.
-- since: DateTime = 30d | start of the period
SELECT at, event, server, tool, JSONExtractString(detail, 'kind') AS kind, definition_digest,
    JSONExtractString(detail, 'approved_digest') AS approved_digest,
    JSONExtractString(detail, 'rules') AS rules, JSONExtractFloat(detail, 'score') AS score, reason,
    JSONExtractString(detail, 'by') AS by
FROM events
WHERE startsWith(event, 'definition.') AND at >= {since:DateTime}
ORDER BY at DESC
