"""Calls with the guards that checked them, as events record them: the rows of the coverage."""

from datetime import UTC, datetime

from toolbus_audit.clickhouse import query
from toolbus_audit.clickhouse.query import ReadOnlyStore
from toolbus_common.contracts import TOOLS_CALL, AuditQuery, GuardChecksQuery, RowsReply
from toolbus_common.contracts.model_calls import MODEL_METHODS
from toolbus_common.guards.coverage import MOST_IDS
from toolbus_common.privacy.key_store import PersonKeys

# Calls of tools, prompts, resources and models. Resources of a server are counted together.
READ = "resources/read"
LAST = 4_102_444_800.0  # 2100, within the range of a DateTime
_METHODS = ", ".join(
    f"'{method}'" for method in (TOOLS_CALL, "prompts/get", READ, *sorted(MODEL_METHODS))
)
# One row for each set of calls that have the same names of checks. A completed call was decided by
# the configuration of its intent.
_CALLS = f"""
SELECT calls.customer AS customer, calls.key AS key, server, tool, method, event, made, failures,
    team, user, version >= {{revision:UInt64}} AS current, count() AS calls, sum(bytes) AS bytes,
    groupArray({MOST_IDS})(calls.call_id) AS call_ids
FROM
(
    SELECT customer, key, server, if(method = '{READ}', '', events.tool) AS tool, method, event,
        call_id, whole_bytes AS bytes,
        JSONExtract(guards, 'Array(Tuple(guard String, verdict String))') AS checks,
        arraySort(arrayDistinct(arrayMap(each -> each.1, checks))) AS made,
        arraySort(arrayDistinct(
            arrayMap(each -> each.1, arrayFilter(each -> each.2 = 'failed', checks))
        )) AS failures
    FROM events
    WHERE event IN ('call.allowed', 'call.completed') AND method IN ({_METHODS})
        AND at >= {{since:DateTime}}
) AS calls
LEFT JOIN
(
    SELECT customer, call_id, any(team) AS team, any(user) AS user,
        max(JSONExtractUInt(detail, 'policy_version')) AS version
    FROM events
    WHERE event = 'call.allowed' AND at >= {{since:DateTime}} - INTERVAL 1 DAY
    GROUP BY customer, call_id
) AS intents
ON calls.customer = intents.customer AND calls.call_id = intents.call_id
GROUP BY customer, key, server, tool, method, event, made, failures, team, user, current
ORDER BY customer, key, server, tool, event
"""  # noqa: S608 - only constants are inserted


async def guard_checks(
    store: ReadOnlyStore, people: PersonKeys, request: GuardChecksQuery
) -> RowsReply:
    """Return the calls since a time, by their checks. Raises `InvalidError`."""
    since = datetime.fromtimestamp(min(max(request.since, 0.0), LAST), UTC)
    parameters = {"revision": str(request.revision), "since": f"{since:%Y-%m-%d %H:%M:%S}"}
    return await query.answer(
        store, people, AuditQuery(sql=_CALLS, limit=query.MAX_ROWS, parameters=parameters)
    )
