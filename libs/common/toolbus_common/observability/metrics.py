"""Every metric of every service, in one place, so that a dashboard can trust a name."""

from prometheus_client import Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

# Calls as they leave the edge. outcome: ok, or the error's code.
CALLS = Counter("toolbus_calls", "Tool calls answered at the edge", ["outcome"])
# Seconds from the parsed request to the last byte handed to the server.
CALL_SECONDS = Histogram("toolbus_call_seconds", "Duration of tool calls", buckets=_SECONDS)
# Requests the HTTP guard refused. reason: host, origin, size, json, …
REFUSED_REQUESTS = Counter("toolbus_refused_requests", "HTTP requests refused", ["reason"])
# Connections of an HTTP listener (`agents` or `readers`), and how many it takes at most.
CONNECTIONS = Gauge("toolbus_http_connections", "Open connections", ["listener"])
CONNECTIONS_MOST = Gauge("toolbus_http_connections_most", "Most open connections", ["listener"])
# Refused by a bound. reason: total, address.
CONNECTIONS_REFUSED = Counter(
    "toolbus_http_connections_refused", "Connections refused by a bound", ["listener", "reason"]
)
# Closed for what the client did, or did not. reason: idle, head, body, write, large_head, …
CONNECTIONS_CLOSED = Counter(
    "toolbus_http_connections_closed", "Connections closed by a bound", ["listener", "reason"]
)
# Requests whose credentials were rejected. entrance: mcp, admin, …; reason: our own words.
REJECTED_ACCESS = Counter(
    "toolbus_rejected_access", "Requests rejected for their credentials", ["entrance", "reason"]
)
# Policy's decisions. decision: allowed, or the error's code.
DECISIONS = Counter("toolbus_decisions", "Decisions of policy", ["decision"])
# Calls per upstream. outcome: ok, tool_error, or the error's code.
UPSTREAM_CALLS = Counter("toolbus_upstream_calls", "Calls to upstreams", ["server", "outcome"])
UPSTREAM_SECONDS = Histogram(
    "toolbus_upstream_seconds", "Duration of upstream calls", ["server"], buckets=_SECONDS
)
# Calls tried again: attempts are the calls that reached an upstream, and these.
UPSTREAM_RETRIES = Counter("toolbus_upstream_retries", "Calls tried again", ["server"])
# Messages of an upstream that belong to no call under way. kind: log, progress, request.
UPSTREAM_DROPPED = Counter(
    "toolbus_upstream_dropped_messages", "Messages that belong to no call", ["server", "kind"]
)
# How many calls a server is given at once, as found out from how it does.
UPSTREAM_PLACES = Gauge("toolbus_upstream_places", "Calls an upstream is given at once", ["server"])
# 1 while calls are refused because the server failed repeatedly.
UPSTREAM_OPEN = Gauge("toolbus_upstream_breaker_open", "Whether its breaker is open", ["server"])
# 1 while a replica takes no calls because the others do better.
REPLICA_EJECTED = Gauge(
    "toolbus_upstream_replica_ejected", "Whether a replica is ejected", ["server", "replica"]
)
# Events this process could not yet get acknowledged; they wait in memory and in the spool file.
EVENTS_UNACKNOWLEDGED = Gauge("toolbus_events_unacknowledged", "Events waiting for the stream")
# Rows audit has written, and messages still in the stream.
AUDIT_ROWS = Counter("toolbus_audit_rows", "Events written to ClickHouse")
AUDIT_BEHIND = Gauge("toolbus_audit_behind", "Messages in EVENTS audit has not yet written")
AUDIT_DEAD = Counter("toolbus_audit_dead_letters", "Events audit could not read")
# Those that lie in the table now: what could be read after all is taken out.
AUDIT_DEAD_KEPT = Gauge("toolbus_audit_dead_letters_kept", "Dead letters in the table")

# Events taken into the hash trees, and when all there was had last been signed.
SEALED_EVENTS = Counter("toolbus_sealed_events", "Events in signed checkpoints")
SEALED_UNTIL = Gauge("toolbus_sealed_until_seconds", "When all logs were last signed, in Unix seconds")
# Of the customer that is furthest behind: events of its newest checkpoint not yet cosigned.
WITNESS_BEHIND = Gauge("toolbus_witness_behind", "Events not cosigned by a witness", ["witness"])
WITNESS_FAILURES = Counter(
    "toolbus_witness_failures", "Checkpoints not taken by a witness", ["witness"]
)

# Spans that ended, by what became of them: exported, dropped (too many waited), failed.
SPANS = Counter("toolbus_spans", "Spans of traces, by what became of them", ["outcome"])
# Programs of code mode. outcome: ok, or the error's name.
RUNS = Counter("toolbus_runs", "Programs run", ["outcome"])
RUN_SECONDS = Histogram("toolbus_run_seconds", "Duration of programs", buckets=_SECONDS)
# 1 while a service of this process can do its work; set whenever somebody looks.
SERVICE_READY = Gauge("toolbus_service_ready", "Whether a service can do its work", ["service"])
# Delivery of events to SIEM sinks.
SINK_EVENTS = Counter("toolbus_sink_events", "Events delivered to a sink", ["sink"])
SINK_DEAD = Counter("toolbus_sink_dead_letters", "Events that a sink rejected for good", ["sink"])
SINK_LOST = Counter("toolbus_sink_lost", "Messages deleted before delivery to a sink", ["sink"])
SINK_FAILURES = Counter("toolbus_sink_failures", "Failed delivery attempts to a sink", ["sink"])
SINK_BEHIND = Gauge("toolbus_sink_behind", "Messages not yet delivered to a sink", ["sink"])
# Events written by declared exports, and the moment everything up to then had been.
EXPORT_EVENTS = Counter("toolbus_export_events", "Events written to files", ["export"])
EXPORT_FAILURES = Counter("toolbus_export_failures", "Exports that failed", ["export"])
EXPORT_UNTIL = Gauge("toolbus_export_until_seconds", "When an export was last done", ["export"])


def exposition() -> bytes:
    """All metrics of this process in Prometheus' text form."""
    return generate_latest()
