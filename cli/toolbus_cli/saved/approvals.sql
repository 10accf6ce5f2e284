-- Which calls waited for a person, who decided what, and how long that took.
-- since: DateTime = 7d | from when
SELECT asked_at, scope AS customer, key, server, tool, cause, state, by, reason,
    if(decided_at > asked_at, dateDiff('second', asked_at, decided_at), NULL) AS seconds, approval
FROM approvals
WHERE asked_at >= {since:DateTime}
ORDER BY asked_at DESC
