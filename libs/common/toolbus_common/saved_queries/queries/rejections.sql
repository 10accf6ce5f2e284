-- Rejected requests by client address and reason: guessed keys, failed sign-ins.
-- since: DateTime = 1d | start of the period
SELECT if(address = '', '(many)', address) AS client, entrance, code, sum(requests) AS requests,
    min(rejections.since) AS first, max(at) AS last
FROM rejections
WHERE at >= {since:DateTime}
GROUP BY client, entrance, code
ORDER BY requests DESC
