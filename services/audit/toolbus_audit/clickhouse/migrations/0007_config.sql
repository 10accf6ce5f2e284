-- Configuration changes: author, entry, and its value before and after. Events hold no credentials:
-- they are redacted before publishing.
CREATE VIEW IF NOT EXISTS config_changes AS
SELECT
    at,
    JSONExtractString(detail, 'by') AS by,
    JSONExtractString(detail, 'kind') AS kind,
    JSONExtractString(detail, 'name') AS name,
    JSONExtractString(detail, 'before') AS before,
    JSONExtractString(detail, 'after') AS after,
    JSONExtractUInt(detail, 'revision') AS revision
FROM events
WHERE event = 'config.changed';
