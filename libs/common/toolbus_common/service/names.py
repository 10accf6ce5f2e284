"""Names of the services. The command line imports this module without the services."""

SERVICES = ("ingress", "policy", "executor", "codemode", "audit", "oauth")
