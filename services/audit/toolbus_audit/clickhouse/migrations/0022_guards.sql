-- The checks of guards in the events of a call, as a JSON array of `GuardCheck`; empty if no guard
-- applied.
ALTER TABLE events ADD COLUMN IF NOT EXISTS guards String CODEC(ZSTD(1)) AFTER suggested_by;

-- What the run of a call had read before it, as a JSON `FlowRecord`; empty without labels that matter.
ALTER TABLE events ADD COLUMN IF NOT EXISTS flow String CODEC(ZSTD(1)) AFTER guards;

-- One row per check of a guard. `phase` is what was checked, and `event` is the event that contains the
-- check: with the verdict `failed`, call.denied and call.failed mean that the guard failed closed, and
-- call.allowed and call.completed that it failed open.
CREATE VIEW IF NOT EXISTS guard_checks AS
SELECT
    checked_at AS at,
    paid_by AS customer,
    of_team AS team,
    of_key AS key,
    of_server AS server,
    of_tool AS tool,
    of_method AS method,
    of_call AS call_id,
    name AS event,
    tupleElement(check, 'guard') AS guard,
    tupleElement(check, 'phase') AS phase,
    tupleElement(check, 'verdict') AS verdict,
    tupleElement(check, 'version') AS version,
    tupleElement(check, 'findings') AS findings,
    tupleElement(check, 'score') AS score,
    tupleElement(check, 'bytes') AS bytes,
    tupleElement(check, 'us') AS us,
    tupleElement(check, 'cached') AS cached,
    tupleElement(check, 'error') AS error
FROM
(
    SELECT
        at AS checked_at,
        customer AS paid_by,
        team AS of_team,
        key AS of_key,
        server AS of_server,
        tool AS of_tool,
        method AS of_method,
        call_id AS of_call,
        event AS name,
        JSONExtract(
            guards,
            'Array(Tuple(guard String, phase String, verdict String, version String, findings Array(String), score Float64, bytes UInt64, us UInt64, cached Bool, error String))'
        ) AS checks
    FROM events
    WHERE guards != ''
)
ARRAY JOIN checks AS check;

-- One row per decision about a call that reads or writes labelled content, and per reset of a run.
-- `verdict` is `passed`, `flagged`, `asked`, `refused` or `reset`. `private` and `untrusted` are the ids
-- of the calls that had read such content, and `chain` are their tools in order.
CREATE VIEW IF NOT EXISTS flow_decisions AS
SELECT
    at,
    customer,
    team,
    user,
    key,
    if(is_reset, JSONExtractString(detail, 'run'), tupleElement(record, 'run')) AS run,
    multiIf(
        is_reset, 'reset',
        tupleElement(record, 'verdict') = '', 'passed',
        tupleElement(record, 'verdict')
    ) AS verdict,
    server,
    tool,
    method,
    call_id,
    parent_id,
    event,
    code,
    approval,
    if(is_reset, JSONExtractString(detail, 'private'), tupleElement(record, 'private')) AS private,
    if(is_reset, JSONExtractString(detail, 'untrusted'), tupleElement(record, 'untrusted')) AS untrusted,
    tupleElement(record, 'chain') AS chain,
    tupleElement(record, 'reads') AS reads,
    tupleElement(record, 'writes') AS writes,
    tupleElement(record, 'narrowed') AS narrowed,
    if(is_reset, JSONExtractString(detail, 'by'), '') AS by,
    reason
FROM
(
    SELECT
        *,
        event = 'flow.reset' AS is_reset,
        JSONExtract(
            flow,
            'Tuple(run String, verdict String, private String, untrusted String, chain Array(String), reads Array(String), writes String, narrowed Bool)'
        ) AS record
    FROM events
    WHERE flow != '' OR event = 'flow.reset'
)
WHERE is_reset OR tupleElement(record, 'run') != '';

-- As in migration 8, grouped by the customer too: a parent id is only unique for one customer, so the
-- calls of another customer with the same parent id are not part of the run.
CREATE OR REPLACE VIEW runs AS
SELECT
    of_run AS run,
    anyIf(outer, is_run) AS parent,
    minIf(event_at, name = 'run.started') AS started_at,
    paid_by AS customer,
    anyIf(of_key, is_run) AS key,
    anyIf(JSONExtractString(run_detail, 'team'), is_run) AS team,
    anyIf(JSONExtractString(run_detail, 'user'), is_run) AS user,
    anyIf(JSONExtractString(run_detail, 'engine'), is_run) AS engine,
    anyIf(JSONExtractString(run_detail, 'program_digest'), is_run) AS program_digest,
    anyIf(JSONExtractUInt(run_detail, 'lines'), is_run) AS lines,
    anyIf(JSONExtractString(run_detail, 'program'), name = 'run.started') AS program,
    multiIf(
        countIf(name = 'run.completed') > 0, 'completed',
        countIf(name = 'run.failed') > 0, 'failed',
        'running'
    ) AS state,
    anyIf(of_code, name = 'run.failed') AS code,
    anyIf(why, name = 'run.failed') AS reason,
    anyIf(JSONExtractUInt(run_detail, 'at_line'), name = 'run.failed') AS at_line,
    anyIf(JSONExtractUInt(run_detail, 'calls'), is_end) AS calls,
    anyIf(JSONExtractUInt(run_detail, 'denied'), is_end) AS denied,
    anyIf(JSONExtractUInt(run_detail, 'failed'), is_end) AS failed,
    sumIf(cost_of_call, is_call) AS cost,
    anyIf(took_us, is_end) AS latency_us,
    anyIf(JSONExtractUInt(run_detail, 'cpu_us'), is_end) AS cpu_us,
    anyIf(JSONExtractUInt(run_detail, 'output_bytes'), is_end) AS output_bytes,
    anyIf(JSONExtractUInt(run_detail, 'stored'), is_end) AS stored,
    arraySort(groupArrayIf(
        CAST(
            (event_at, own_id, concat(of_server, '__', of_tool), name, of_code, cost_of_call, took_us),
            'Tuple(at DateTime64(6, \'UTC\'), call_id String, tool String, event String, code String, charge Int64, latency_us Int64)'
        ),
        is_call
    )) AS inner_calls
FROM
(
    SELECT
        event AS name,
        at AS event_at,
        detail AS run_detail,
        startsWith(event, 'run.') AS is_run,
        event IN ('run.completed', 'run.failed') AS is_end,
        NOT is_run AS is_call,
        if(is_run, call_id, parent_id) AS of_run,
        if(is_run, parent_id, '') AS outer,
        call_id AS own_id,
        customer AS paid_by,
        key AS of_key,
        server AS of_server,
        tool AS of_tool,
        code AS of_code,
        reason AS why,
        if(event = 'call.denied', 0, charge) AS cost_of_call,
        latency_us AS took_us
    FROM events
    WHERE event IN ('run.started', 'run.completed', 'run.failed')
        OR (parent_id != '' AND event IN ('call.completed', 'call.failed', 'call.denied'))
)
GROUP BY of_run, paid_by
HAVING countIf(is_run) > 0;
