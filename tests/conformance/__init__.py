"""The public conformance suite, run against the fixture server and through a running gateway."""
