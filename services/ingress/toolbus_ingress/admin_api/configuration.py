"""The whole configuration: show it, replace it, and restore an earlier revision."""

from typing import Annotated, Literal

from fastapi import Query
from starlette.responses import Response

from toolbus_common.admin_api.installation_models import RevisionsResponse
from toolbus_common.admin_api.models import AppliedResponse, ConfigurationResponse, Written
from toolbus_ingress.admin_api.parameters import DryRun, Earlier, IfMatch, revision
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

router = administration("configuration")


@router.get("", response_model=ConfigurationResponse)
async def show_configuration(
    call: Annotated[PolicyCall, performs("show_configuration")],
    form: Annotated[
        Literal["json", "yaml"], Query(alias="format", description="Format of the response.")
    ] = "json",
) -> Response:
    """Return the whole configuration, without secrets; as YAML with format=yaml."""
    return await call.run(form=form)


@router.put("", response_model=AppliedResponse)
async def apply_configuration(
    call: Annotated[PolicyCall, performs("apply_configuration", body=Written, yaml=True)],
    dry_run: DryRun = "false",
    if_match: IfMatch = "",
) -> Response:
    """Replace the whole configuration atomically; with dry_run=true, only return the changes."""
    return await call.run(dry_run=dry_run == "true", match=revision(if_match))


@router.get("/revisions", response_model=RevisionsResponse)
async def list_revisions(call: Annotated[PolicyCall, performs("list_revisions")]) -> Response:
    """List the stored revisions of the configuration, the newest first."""
    return await call.run()


@router.post("/revisions/{name}/restore", response_model=AppliedResponse)
async def restore_revision(
    call: Annotated[PolicyCall, performs("restore_revision")],
    name: Earlier,
    dry_run: DryRun = "false",
    if_match: IfMatch = "",
) -> Response:
    """Apply an earlier revision, without its secrets; with dry_run=true, return the changes."""
    return await call.run(name=name, dry_run=dry_run == "true", match=revision(if_match))
