-- Who changed what of the configuration, before and after. Credentials are struck out in the events.
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
