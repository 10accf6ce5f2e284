-- Tools and prompts that changed after their approval, with the decisions about them.
-- since: DateTime = 30d | start of the period
SELECT at, event, server, tool, JSONExtractString(detail, 'kind') AS kind, definition_digest,
    JSONExtractString(detail, 'approved_digest') AS approved_digest,
    JSONExtractString(detail, 'by') AS by
FROM events
WHERE startsWith(event, 'definition.') AND at >= {since:DateTime}
ORDER BY at DESC
