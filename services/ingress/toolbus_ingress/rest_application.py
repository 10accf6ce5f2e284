"""All REST APIs as one FastAPI application; imported for the first request (see `RestApis`)."""

from toolbus_common.admin_api.models import KINDS
from toolbus_ingress.a2a.description import describe_a2a
from toolbus_ingress.admin_api import (
    admins,
    configuration,
    description,
    entries,
    keys,
    reports,
    runs,
)
from toolbus_ingress.admin_api import approvals as admin_approvals
from toolbus_ingress.admin_api import model_cache as cache
from toolbus_ingress.approvals import routes as approvals
from toolbus_ingress.live.description import describe_live_calls
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.models_api import routes as models
from toolbus_ingress.rest.application import Application
from toolbus_ingress.tools_api import explanations
from toolbus_ingress.tools_api import routes as tools
from toolbus_ingress.tools_api import runs as own_runs


def build(endpoint: Endpoint) -> Application:
    """Compose the application."""
    routers = [
        description.router,
        configuration.router,
        keys.router,
        admins.own_router,
        admins.router,
        reports.guards,  # its fixed path precedes /guards/{name}
        *(entries.router_of(kind) for kind in KINDS),
        reports.budgets,
        reports.status,
        reports.audit,
        cache.router,
        reports.catalogue,
        admin_approvals.router,
        admin_approvals.definitions,
        runs.router,
        runs.flow,
        approvals.router,
        tools.router,
        explanations.router,
        own_runs.router,
        models.router,
    ]
    extensions = (
        description.describe_administration,
        tools.describe_tool_calls,
        explanations.describe_explanations,
        models.describe_models,
        describe_live_calls,
        describe_a2a,
    )
    return Application(endpoint, routers, extensions)
