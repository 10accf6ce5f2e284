"""Metrics of all services. One module defines all names, so that dashboards can rely on them."""

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from toolbus_common.observability.call_metrics import SECONDS, CallDurations

# Calls completed at ingress. outcome: ok, or the error's code.
CALLS = Counter("toolbus_calls", "Tool calls completed at the edge", ["outcome"])
# Seconds from the parsed request until the whole response is passed to the HTTP server.
CALL_SECONDS = CallDurations("toolbus_call_seconds", "Duration of tool calls")
# Model requests completed at ingress. outcome: ok, or the error's code.
MODEL_REQUESTS = Counter("toolbus_model_requests", "Model requests completed", ["outcome"])
# Seconds from the read request until the whole response is passed to the HTTP server.
MODEL_SECONDS = CallDurations("toolbus_model_request_seconds", "Duration of model requests")
# Targets of aliases that failed, so that the next target was tried. reason: the error's code.
MODEL_FALLBACKS = Counter("toolbus_model_fallbacks", "Fallbacks to another target", ["reason"])
# Requests the HTTP guard rejected. reason: host, origin, size, json, …
REJECTED_REQUESTS = Counter("toolbus_rejected_requests", "HTTP requests rejected", ["reason"])
# Open connections of an HTTP listener (`agents` or `readers`), and their maximum.
CONNECTIONS = Gauge("toolbus_http_connections", "Open connections", ["listener"])
CONNECTIONS_LIMIT = Gauge(
    "toolbus_http_connections_limit", "Maximum of open connections", ["listener"]
)
# Connections that a limit rejected. reason: total, address.
CONNECTIONS_REJECTED = Counter(
    "toolbus_http_connections_rejected", "Connections rejected by a limit", ["listener", "reason"]
)
# Connections that were closed because of the client. reason: idle, head, body, write, large_head, …
CONNECTIONS_CLOSED = Counter(
    "toolbus_http_connections_closed", "Connections closed by a limit", ["listener", "reason"]
)
# The time when the certificate of a listener expires; 1 while its replaced files cannot be used.
CERTIFICATE_EXPIRY = Gauge(
    "toolbus_certificate_expiry_timestamp_seconds", "Expiry of the certificate", ["listener"]
)
CERTIFICATE_NOT_RELOADED = Gauge(
    "toolbus_certificate_not_reloaded", "Replaced certificate files are unusable", ["listener"]
)
# Requests whose credentials were rejected. entrance: mcp, admin, …; reason: an error code.
REJECTED_ACCESS = Counter(
    "toolbus_rejected_access", "Requests rejected for their credentials", ["entrance", "reason"]
)
# Policy's decisions. decision: allowed, or the error's code.
DECISIONS = Counter("toolbus_decisions", "Decisions of policy", ["decision"])
# Calls per upstream. outcome: ok, tool_error, or the error's code.
UPSTREAM_CALLS = Counter("toolbus_upstream_calls", "Calls to upstreams", ["server", "outcome"])
UPSTREAM_SECONDS = CallDurations("toolbus_upstream_seconds", "Duration of upstream calls", "server")
# Tokens of model requests. direction: input (not from the provider's cache), cached_input, output.
MODEL_TOKENS = Counter(
    "toolbus_model_tokens", "Tokens of model requests", ["provider", "api", "direction"]
)
# Requests that could use the cache of responses, and what its responses saved. outcome: hit,
# semantic-hit, miss, bypass (excluded by the request, or by what it contains).
MODEL_CACHE_REQUESTS = Counter(
    "toolbus_model_cache_requests", "Model requests by use of the cache", ["provider", "outcome"]
)
MODEL_CACHE_SAVED_TOKENS = Counter(
    "toolbus_model_cache_saved_tokens", "Tokens saved by the cache of responses", ["provider"]
)
MODEL_CACHE_SAVED_DOLLARS = Counter(
    "toolbus_model_cache_saved_dollars", "Dollars saved by the cache of responses", ["provider"]
)
# Seconds from the attempt's start to the first part of a streamed response.
MODEL_FIRST_TOKEN_SECONDS = CallDurations(
    "toolbus_model_first_token_seconds", "Time to the first token of a model", "provider"
)
# Retried calls. The number of attempts is the sum of retries and of calls that reached an upstream.
UPSTREAM_RETRIES = Counter("toolbus_upstream_retries", "Retried calls", ["server"])
# Messages from an upstream that belong to no active call. kind: log, progress, request.
UPSTREAM_DROPPED = Counter(
    "toolbus_upstream_dropped_messages",
    "Messages that belong to no active call",
    ["server", "kind"],
)
# Checks of content by other services. outcome: passed, flagged, cached, or the error's code.
GUARD_SERVICE_CHECKS = Counter(
    "toolbus_guard_service_checks", "Checks of content by services", ["guard", "outcome"]
)
GUARD_SERVICE_SECONDS = CallDurations(
    "toolbus_guard_service_seconds", "Duration of checks by services", "guard"
)
# The concurrency limit of a server, adapted to its latency and errors.
UPSTREAM_CONCURRENCY_LIMIT = Gauge(
    "toolbus_upstream_concurrency_limit", "Concurrency limit of an upstream", ["server"]
)
# 1 while calls are rejected because the server failed repeatedly.
UPSTREAM_OPEN = Gauge(
    "toolbus_upstream_breaker_open", "1 if the circuit breaker is open, else 0", ["server"]
)
# 1 while a replica receives no calls because the other replicas perform better.
REPLICA_EJECTED = Gauge(
    "toolbus_upstream_replica_ejected", "1 if a replica is ejected, else 0", ["server", "replica"]
)
# Events of this process that are not yet acknowledged. They are in memory and in the outbox file.
EVENTS_UNACKNOWLEDGED = Gauge(
    "toolbus_events_unacknowledged", "Events that the stream has not acknowledged"
)
# Rows that audit has written, and messages that it has not processed yet.
AUDIT_ROWS = Counter("toolbus_audit_rows", "Events written to ClickHouse")
AUDIT_BEHIND = Gauge("toolbus_audit_backlog", "Messages in EVENTS that audit has not written yet")
EVENT_STREAM_FILL = Gauge("toolbus_event_stream_fill_ratio", "Share of the maximum of EVENTS")
EVENT_STREAM_COPIES = Gauge("toolbus_event_stream_replicas", "Servers that store EVENTS")
EVENT_STREAM_LAGGING = Gauge(
    "toolbus_event_stream_replicas_lagging", "Incomplete or unreachable copies of EVENTS"
)
AUDIT_DEAD = Counter("toolbus_audit_dead_letters", "Events that audit could not read")
# Dead letters in the table now; they are removed when a retry succeeds.
AUDIT_DEAD_KEPT = Gauge("toolbus_audit_dead_letters_stored", "Dead letters in the table")

# Events in the Merkle trees, and the time when all trees were last signed.
SEALED_EVENTS = Counter("toolbus_signed_events", "Events in signed checkpoints")
SEALED_UNTIL = Gauge("toolbus_signed_until_seconds", "Time when all logs were last signed")
# Events of the newest checkpoint that are not cosigned yet, for the customer with the most.
WITNESS_BEHIND = Gauge("toolbus_witness_backlog", "Events not cosigned by a witness", ["witness"])
WITNESS_FAILURES = Counter(
    "toolbus_witness_failures", "Checkpoints a witness did not accept", ["witness"]
)

# Ended spans. outcome: exported, dropped (queue full), failed.
SPANS = Counter("toolbus_spans", "Spans of traces by outcome", ["outcome"])
# Checks of content by guards. verdict: passed, blocked, redacted, flagged, asked, failed, would_….
GUARD_CHECKS = Counter("toolbus_guard_checks", "Checks of guards", ["guard", "phase", "verdict"])
GUARD_SECONDS = CallDurations("toolbus_guard_seconds", "Duration of checks of guards", "guard")
# Checks that a guard could not make. outcome: closed (rejected), open (passed without the check).
GUARD_FAILURES = Counter(
    "toolbus_guard_failures", "Checks that failed", ["guard", "phase", "outcome"]
)
# Programs of code mode. outcome: ok, or the error's name.
RUNS = Counter("toolbus_runs", "Programs run", ["outcome"])
RUN_SECONDS = Histogram("toolbus_run_seconds", "Duration of programs", buckets=SECONDS)
# 1 while a service of this process is ready. The value is set when metrics are read.
SERVICE_READY = Gauge("toolbus_service_ready", "1 if a service is ready, else 0", ["service"])
# Events that sinks received, events that sinks reject permanently, lost messages, failed attempts,
# and messages that are not yet sent.
SINK_EVENTS = Counter("toolbus_sink_events", "Events delivered to a sink", ["sink"])
SINK_DEAD = Counter("toolbus_sink_dead_letters", "Events a sink rejects permanently", ["sink"])
SINK_LOST = Counter(
    "toolbus_sink_lost", "Messages expired before they were sent to a sink", ["sink"]
)
SINK_FAILURES = Counter("toolbus_sink_failures", "Failed attempts to send to a sink", ["sink"])
SINK_BEHIND = Gauge("toolbus_sink_backlog", "Messages not yet delivered to a sink", ["sink"])
# Events that exports have written, failed exports, and the time up to which an export is complete.
EXPORT_EVENTS = Counter("toolbus_export_events", "Events written to files", ["export"])
EXPORT_FAILURES = Counter("toolbus_export_failures", "Exports that failed", ["export"])
EXPORT_UNTIL = Gauge(
    "toolbus_export_until_seconds", "Time up to which an export is complete", ["export"]
)


def exposition() -> bytes:
    """Return all metrics of this process in the Prometheus text format."""
    return generate_latest()
