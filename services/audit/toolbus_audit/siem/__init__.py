"""Live forwarding of events to SIEM sinks, each with an independent position in the stream."""
