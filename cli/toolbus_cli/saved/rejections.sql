-- Which client addresses were rejected, where and why: keys that are tried, sign-ins that fail.
-- since: DateTime = 1d | from when
SELECT if(address = '', '(many)', address) AS client, entrance, code, sum(requests) AS requests,
    min(rejections.since) AS first, max(at) AS last
FROM rejections
WHERE at >= {since:DateTime}
GROUP BY client, entrance, code
ORDER BY requests DESC
