"""Guards that ask another service, and the checks that policy and codemode request."""
