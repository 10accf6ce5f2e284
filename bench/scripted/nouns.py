"""Data model of the benchmark's company: sixteen servers with four kinds of records each.

A field is `text`, `int least most`, `day`, `ref server.nouns pool` or `choice a b c`. A pool larger
than the number of records leaves some references dangling, as in real data.
"""

from dataclasses import dataclass

Fields = dict[str, str]
_USUAL: Fields = {
    "name": "text",
    "status": "choice draft active paused retired",
    "owner_id": "ref people.employees 40",
    "updated_on": "day",
    "weight": "int 1 500",
}
_SPELLED: dict[str, tuple[int, Fields]] = {
    "crm.customers": (
        60,
        {
            "name": "text",
            "region": "choice north south east west",
            "tier": "choice basic plus gold",
            "owner_id": "ref people.employees 40",
        },
    ),
    "shop.orders": (
        150,
        {
            "customer_id": "ref crm.customers 64",
            "status": "choice open shipped returned",
            "placed_on": "day",
            "total_cents": "int 900 90000",
        },
    ),
    "people.employees": (
        40,
        {
            "name": "text",
            "team": "choice sales platform finance field",
            "manager_id": "ref people.employees 40",
            "email": "text",
        },
    ),
    "people.absences": (
        90,
        {
            "employee_id": "ref people.employees 40",
            "kind": "choice holiday illness course",
            "first_day": "day",
            "days": "int 1 9",
        },
    ),
    "tracker.issues": (
        120,
        {
            "title": "text",
            "status": "choice open doing done",
            "priority": "choice low normal high",
            "assignee_id": "ref people.employees 40",
            "points": "int 1 13",
        },
    ),
    "billing.invoices": (
        200,
        {
            "customer_id": "ref crm.customers 60",
            "status": "choice paid sent overdue",
            "due_on": "day",
            "amount_cents": "int 1000 250000",
        },
    ),
    "billing.payments": (
        260,
        {
            "invoice_id": "ref billing.invoices 200",
            "paid_on": "day",
            "amount_cents": "int 1000 250000",
        },
    ),
    "calendar.events": (
        60,
        {
            "title": "text",
            "starts_on": "day",
            "room_id": "ref calendar.rooms 14",
            "attendees": "int 2 24",
        },
    ),
    "calendar.rooms": (14, {"name": "text", "floor": "int 1 3", "seats": "int 4 26"}),
    "files.files": (
        140,
        {
            "path": "text",
            "folder_id": "ref files.folders 5",
            "bytes": "int 100 900000",
            "owner_id": "ref people.employees 40",
        },
    ),
    "stock.items": (
        90,
        {
            "name": "text",
            "warehouse_id": "ref stock.warehouses 6",
            "quantity": "int 0 200",
            "reorder_level": "int 5 80",
        },
    ),
    "stock.purchases": (
        30,
        {"item_id": "ref stock.items 90", "quantity": "int 1 200", "status": "choice open done"},
    ),
    "chat.channels": (24, {"name": "text", "topic": "choice release outage hiring social"}),
    "chat.messages": (
        240,
        {
            "channel_id": "ref chat.channels 24",
            "author_id": "ref people.employees 40",
            "sent_on": "day",
            "text": "text",
        },
    ),
    "mail.letters": (20, {"to": "text", "subject": "text", "body": "text"}),
    "support.tickets": (
        160,
        {
            "customer_id": "ref crm.customers 60",
            "status": "choice open waiting closed",
            "severity": "choice minor major critical",
            "opened_on": "day",
        },
    ),
    "builds.runs": (
        180,
        {
            "branch": "choice main next hotfix docs",
            "status": "choice passed failed stopped",
            "seconds": "int 20 2400",
            "author_id": "ref people.employees 40",
        },
    ),
    "wiki.pages": (
        100,
        {
            "title": "text",
            "space_id": "ref wiki.spaces 8",
            "status": "choice draft published in_review",
            "edited_on": "day",
        },
    ),
    "legal.contracts": (
        70,
        {
            "title": "text",
            "customer_id": "ref crm.customers 60",
            "owner_id": "ref people.employees 40",
            "ends_on": "day",
        },
    ),
    "fleet.vehicles": (
        50,
        {
            "plate": "text",
            "depot": "choice harbour airport centre mill",
            "kilometres": "int 2000 90000",
            "service_at": "int 10000 90000",
        },
    ),
    "fleet.services": (20, {"vehicle_id": "ref fleet.vehicles 50", "booked_on": "day"}),
}
_PLACES = {
    "crm": "customers contacts segments visits",
    "shop": "orders products refunds shipments",
    "people": "employees absences teams trainings",
    "tracker": "issues comments sprints labels",
    "billing": "invoices payments plans credits",
    "calendar": "events rooms invitations holidays",
    "files": "files folders shares versions",
    "stock": "items warehouses purchases transfers",
    "chat": "channels messages mentions reactions",
    "mail": "letters drafts templates filters",
    "support": "tickets replies macros ratings",
    "builds": "runs artifacts pipelines workers",
    "wiki": "pages spaces attachments reviews",
    "legal": "contracts clauses signatures requests",
    "metrics": "dashboards alerts series reports",
    "fleet": "vehicles trips drivers services",
}
_IRREGULAR = {"series": "series", "people": "person"}


@dataclass(frozen=True, slots=True)
class Noun:
    """A kind of record at its server."""

    server: str
    plural: str
    count: int
    fields: Fields

    @property
    def path(self) -> str:
        """The qualified name."""
        return f"{self.server}.{self.plural}"

    @property
    def one(self) -> str:
        """The singular name."""
        return _IRREGULAR.get(self.plural, self.plural.removesuffix("s"))

    def id_of(self, number: int) -> str:
        """Return the id of one record."""
        return f"{self.one}-{number:04}"


def _noun(server: str, plural: str) -> Noun:
    count, fields = _SPELLED.get(f"{server}.{plural}", (30, _USUAL))
    return Noun(server, plural, count, fields)


SERVERS = tuple(_PLACES)
NOUNS = {
    noun.path: noun
    for server, plurals in _PLACES.items()
    for noun in (_noun(server, plural) for plural in plurals.split())
}
