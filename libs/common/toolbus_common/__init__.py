"""Code that services share: contracts, bus, configuration, errors, settings, logs, metrics."""

VERSION = "0.1.0"
