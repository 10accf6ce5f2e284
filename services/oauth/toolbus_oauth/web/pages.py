"""Pages for people. Each form contains `sealed`: an encrypted ticket, bound to one browser."""

from collections.abc import Iterable

from toolbus_common.access.oauth_scopes import ADMINISTER
from toolbus_common.contracts import PageReply
from toolbus_common.egress import EgressError, target_of
from toolbus_common.web import html
from toolbus_oauth.storage.records import AuthorizationRequest, Ticket
from toolbus_oauth.web.errors import PageError
from toolbus_oauth.web.redirect_uris import display_host, is_local


def page(
    template: str, status: int = 200, error: str = "", *, leads_on: bool = False, **values: object
) -> PageReply:
    """Render a template; with `leads_on`, the response to its form may redirect to another site."""
    body = html.render(template, error=error, **values).encode()
    return PageReply(status=status, headers=html.headers(leads_on=leads_on), body=body)


def sign_in(
    ticket: Ticket, sealed: str, issuers: Iterable[str], error: str = "", status: int = 200
) -> PageReply:
    """Render the form with name and password, and a button for each OpenID provider."""
    request = ticket.auth_request
    purpose = "account" if request.account else "connect" if request.connect else "client"
    return page(
        "toolbus_oauth.web/sign_in.html",
        status,
        error,
        purpose=purpose,
        client=_client(request),
        server=request.resource,
        ticket=sealed,
        issuers=list(issuers),
    )


def provider_link(issuer: str, url: str) -> PageReply:
    """Render the link to an OpenID provider. Raises `PageError` if the URL is not http or https.

    The page has a link, because its `form-action` would block the redirects after a form.
    """
    try:
        target_of(url)
    except EgressError as error:
        raise PageError(
            f"The provider '{issuer}' cannot be used: its authorization endpoint is not an https "
            "or http URL. Tell an operator.",
            502,
        ) from error
    return page("toolbus_oauth.web/provider.html", issuer=issuer, url=url)


def consent(ticket: Ticket, sealed: str, permissions: Iterable[str]) -> PageReply:
    """Render the consent form: client, permissions, and the recipient of the person's answer."""
    request, redirect = ticket.auth_request, ticket.auth_request.redirect
    return page(
        "toolbus_oauth.web/consent.html",
        leads_on=bool(redirect),
        client=_client(request),
        registered=request.registered,
        local=bool(redirect) and is_local(redirect),
        administers=ADMINISTER in request.scope.split(),
        device=request.device,
        user=ticket.person.user if ticket.person is not None else "",
        permissions=list(permissions),
        resource=request.resource,
        recipient=display_host(redirect) if redirect else "",
        ticket=sealed,
    )


def connect(ticket: Ticket, sealed: str) -> PageReply:
    """Render the form that connects an upstream server, with its scopes and approving host."""
    request, person = ticket.auth_request, ticket.person
    if person is not None and person.user != request.client_id:
        return page("toolbus_oauth.web/connect_other_person.html", 403, ticket=sealed)
    return page(
        "toolbus_oauth.web/connect.html",
        leads_on=True,
        user=person.user if person is not None else "",
        server=request.resource,
        scopes=request.scope,
        host=display_host(request.redirect),
        ticket=sealed,
    )


def device(error: str = "", status: int = 200) -> PageReply:
    """Render the form for the code that a device shows."""
    return page("toolbus_oauth.web/device.html", status, error)


def message_page(title: str, message: str, status: int = 200) -> PageReply:
    """Render a page with a message and no action."""
    return page("toolbus_common.web/message.html", status, title=title, message=message)


def _client(request: AuthorizationRequest) -> str:
    return request.client or request.client_id
