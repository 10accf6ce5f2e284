-- Which calls waited for a person, who decided what, and how long that took.
-- since: DateTime = 7d | from when
SELECT requested_at, customer, key, server, tool, cause, state, by, reason,
    if(decided_at > requested_at, dateDiff('second', requested_at, decided_at), NULL) AS seconds, approval
FROM approvals
WHERE requested_at >= {since:DateTime}
ORDER BY requested_at DESC
