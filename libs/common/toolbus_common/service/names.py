"""The names of the services, apart from what runs them: the command line imports only these."""

SERVICES = ("ingress", "policy", "executor", "codemode", "audit", "oauth")
