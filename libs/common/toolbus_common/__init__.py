"""Share between services: contracts, the bus, errors, settings, logs, traces, metrics, health."""

VERSION = "0.1.0"
