-- Approval requests with the decision, the person who decided, and the waiting time.
-- since: DateTime = 7d | start of the period
SELECT requested_at, customer, key, server, tool, cause, state, by, reason,
    if(decided_at > requested_at, dateDiff('second', requested_at, decided_at), NULL) AS seconds, approval
FROM approvals
WHERE requested_at >= {since:DateTime}
ORDER BY requested_at DESC
