"""The public conformance suite against the fixture server and a running gateway."""
