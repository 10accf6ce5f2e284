-- Who changed what of the configuration.
-- since: DateTime = 30d | from when
SELECT at, by, kind, name, before, after, revision
FROM config_changes
WHERE at >= {since:DateTime}
ORDER BY at DESC
