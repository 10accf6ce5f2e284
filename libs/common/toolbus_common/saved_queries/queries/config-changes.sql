-- Changes of the configuration, with the operator who made them.
-- since: DateTime = 30d | start of the period
SELECT at, by, kind, name, before, after, revision
FROM config_changes
WHERE at >= {since:DateTime}
ORDER BY at DESC
