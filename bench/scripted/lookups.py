"""Tasks that read data: chains, counts, pages, joins, and missing records."""

from typing import Any

from scripted.company import Company
from scripted.families import Classic, Family, distinct, fetched, known, listed, month
from scripted.nouns import NOUNS


def _ids(path: str, step: int) -> tuple[dict[str, Any], ...]:
    noun = NOUNS[path]
    return tuple({"id": noun.id_of(number)} for number in range(step, noun.count, step))


# -- customer of an order ---------------------------------------------------------------------


def _buyer(company: Company, id: str) -> Any:  # noqa: A002
    order = known(company, "shop.orders", id)
    customer = known(company, "crm.customers", order["customer_id"])
    return {"name": customer["name"], "region": customer["region"]}


def _buyer_classic(id: str) -> Classic:  # noqa: A002
    (order,) = yield [("shop__get_order", {"id": id})]
    (customer,) = yield [("crm__get_customer", {"id": order["customer_id"]})]
    return {"name": customer["name"], "region": customer["region"]}


BUYER = Family(
    "buyer",
    "Which customer placed the order $id? Tell me the name and the region.",
    hard=False,
    candidates=_ids("shop.orders", 13),
    truth=_buyer,
    classic=_buyer_classic,
    searches=("get order by id", "get customer by id"),
    manuals=("shop.get_order", "crm.get_customer"),
    program="""
order = shop.get_order(id="$id")
customer = crm.get_customer(id=order["customer_id"])
result = {"name": customer["name"], "region": customer["region"]}
""",
)


# -- manager of a person ----------------------------------------------------------------------


def _manager(company: Company, id: str) -> Any:  # noqa: A002
    issue = known(company, "tracker.issues", id)
    worker = known(company, "people.employees", issue["assignee_id"])
    return known(company, "people.employees", worker["manager_id"])["email"]


def _manager_classic(id: str) -> Classic:  # noqa: A002
    (issue,) = yield [("tracker__get_issue", {"id": id})]
    (worker,) = yield [("people__get_employee", {"id": issue["assignee_id"]})]
    (manager,) = yield [("people__get_employee", {"id": worker["manager_id"]})]
    return manager["email"]


MANAGER = Family(
    "manager",
    "What is the e-mail address of the manager of whoever $id is assigned to?",
    hard=False,
    candidates=_ids("tracker.issues", 17),
    truth=_manager,
    classic=_manager_classic,
    searches=("get issue assignee", "get employee manager"),
    manuals=("tracker.get_issue", "people.get_employee"),
    program="""
issue = tracker.get_issue(id="$id")
worker = people.get_employee(id=issue["assignee_id"])
result = people.get_employee(id=worker["manager_id"])["email"]
""",
)


# -- number of tickets ------------------------------------------------------------------------

_SEVERITIES = ("minor", "major", "critical")


def _severities(company: Company, status: str, month_number: int) -> Any:
    opened = month(month_number)
    return {
        each: len(company.all("support.tickets", status=status, severity=each, opened_on=opened))
        for each in _SEVERITIES
    }


def _severities_classic(status: str, month_number: int) -> Classic:
    opened = month(month_number)
    counts = yield [
        (
            "support__count_tickets",
            {"filter": {"status": status, "severity": each, "opened_on": opened}},
        )
        for each in _SEVERITIES
    ]
    return {each: item["count"] for each, item in zip(_SEVERITIES, counts, strict=True)}


SEVERITIES = Family(
    "severities",
    "How many tickets that are $status now were opened in month $month_number of 2026, by severity "
    "(minor, major, critical)?",
    hard=False,
    candidates=tuple(
        {"status": status, "month_number": number}
        for number in (2, 7)
        for status in ("open", "closed")
    ),
    truth=_severities,
    classic=_severities_classic,
    searches=("count tickets by severity and status",),
    manuals=("support.count_tickets",),
    program="""
opened = {"least": "2026-$month_number-01", "most": "2026-$month_number-28"}
kinds = ["minor", "major", "critical"]
counts = parallel([
    call(support.count_tickets, filter={"status": "$status", "severity": kind, "opened_on": opened})
    for kind in kinds
])
result = {kinds[i]: counts[i]["count"] for i in range(len(kinds))}
""",
)


# -- unpaid invoices --------------------------------------------------------------------------


def _owed(company: Company, first: int, last: int) -> Any:
    due = {"least": month(first)["least"], "most": month(last)["most"]}
    found = company.all("billing.invoices", status="overdue", due_on=due)
    return {"invoices": len(found), "cents": sum(each["amount_cents"] for each in found)}


def _owed_classic(first: int, last: int) -> Classic:
    due = {"least": month(first)["least"], "most": month(last)["most"]}
    found = yield from listed("billing__list_invoices", status="overdue", due_on=due)
    return {"invoices": len(found), "cents": sum(each["amount_cents"] for each in found)}


OWED = Family(
    "owed",
    "How many overdue invoices were due from month $first to month $last of 2026, and how many "
    "cents are they together?",
    hard=True,
    candidates=tuple({"first": first, "last": last} for first in (1, 2) for last in (11, 12)),
    truth=_owed,
    classic=_owed_classic,
    searches=("list invoices overdue due date",),
    manuals=("billing.list_invoices",),
    slip="""
due = {"least": "2026-$first-01", "most": "2026-$last-28"}
found = []
page = 1
while page:
    told = billing.list_invoices(filter={"status": "overdue", "due_on": due}, page=page)
    found += told["items"]
    page = told["next_page"]
result = {"invoices": len(found), "cents": sum([each["amount_cents"] for each in found])}
""",
    program="""
due = {"least": "2026-$first-01", "most": "2026-$last-28"}
count, cents = 0, 0
page = 1
for _ in range(20):
    told = billing.list_invoices(filter={"status": "overdue", "due_on": due}, page=page)
    for each in told["items"]:
        count += 1
        cents += each["amount_cents"]
    if not told["next_page"]:
        break
    page = told["next_page"]
result = {"invoices": count, "cents": cents}
""",
)


# -- returns by origin ------------------------------------------------------------------------


def _returned(company: Company, month_number: int) -> Any:
    sums: dict[str, int] = {}
    for order in company.all("shop.orders", status="returned", placed_on=month(month_number)):
        customer = company.get("crm.customers", order["customer_id"])
        region = customer["region"] if customer else "unknown"
        sums[region] = sums.get(region, 0) + order["total_cents"]
    return sums


def _returned_classic(month_number: int) -> Classic:
    orders = yield from listed(
        "shop__list_orders", status="returned", placed_on=month(month_number)
    )
    customers = yield from fetched("crm__get_customer", distinct(orders, "customer_id"))
    sums: dict[str, int] = {}
    for order in orders:
        customer = customers[order["customer_id"]]
        region = customer["region"] if customer else "unknown"
        sums[region] = sums.get(region, 0) + order["total_cents"]
    return sums


RETURNED = Family(
    "returned",
    "For the orders placed in month $month_number of 2026 that were returned: how many cents are "
    "they worth for each region of their customers? Count customers we no longer have as unknown.",
    hard=True,
    candidates=tuple({"month_number": number} for number in range(1, 13)),
    truth=_returned,
    classic=_returned_classic,
    searches=("list orders by status and day", "get customer region"),
    manuals=("shop.list_orders", "crm.get_customer"),
    program="""
placed = {"least": "2026-$month_number-01", "most": "2026-$month_number-28"}
orders = []
page = 1
for _ in range(20):
    told = shop.list_orders(filter={"status": "returned", "placed_on": placed}, page=page)
    orders += told["items"]
    if not told["next_page"]:
        break
    page = told["next_page"]
ids = sorted({order["customer_id"]: True for order in orders}.keys())
found = parallel([call(crm.get_customer, id=one) for one in ids], catch=True)
regions = {ids[i]: found[i].value["region"] if found[i].ok else "unknown" for i in range(len(ids))}
sums = {}
for order in orders:
    region = regions[order["customer_id"]]
    sums[region] = sums.get(region, 0) + order["total_cents"]
result = sums
""",
)


# -- absences ---------------------------------------------------------------------------------


def _away(company: Company, team: str, month_number: int) -> Any:
    absences = company.all("people.absences", kind="holiday", first_day=month(month_number))
    people = [known(company, "people.employees", one) for one in distinct(absences, "employee_id")]
    return sorted(person["name"] for person in people if person["team"] == team)


def _away_classic(team: str, month_number: int) -> Classic:
    absences = yield from listed(
        "people__list_absences", kind="holiday", first_day=month(month_number)
    )
    people = yield from fetched("people__get_employee", distinct(absences, "employee_id"))
    return sorted(person["name"] for person in people.values() if person["team"] == team)


AWAY = Family(
    "away",
    "Who of the team $team begins a holiday in month $month_number of 2026? Names, sorted.",
    hard=True,
    candidates=tuple(
        {"team": team, "month_number": number}
        for number in (3, 6, 8, 11)
        for team in ("sales", "platform")
    ),
    truth=_away,
    classic=_away_classic,
    searches=("list absences holiday first day", "get employee team"),
    manuals=("people.list_absences", "people.get_employee"),
    slip="""
days = {"least": "2026-$month_number-01", "most": "2026-$month_number-28"}
absences = people.list_absences(filters={"kind": "holiday", "first_day": days})["items"]
result = len(absences)
""",
    program="""
days = {"least": "2026-$month_number-01", "most": "2026-$month_number-28"}
told = people.list_absences(filter={"kind": "holiday", "first_day": days}, page_size=25)
absences = told["items"]
ids = sorted({each["employee_id"]: True for each in absences}.keys())
found = parallel([call(people.get_employee, id=one) for one in ids])
result = sorted([each["name"] for each in found if each["team"] == "$team"])
""",
)


# -- the slowest failure ----------------------------------------------------------------------


def _slowest(company: Company, branch: str) -> Any:
    failed = company.all("builds.runs", branch=branch, status="failed")
    worst = max(failed, key=lambda run: (run["seconds"], run["id"]))
    author = known(company, "people.employees", worst["author_id"])
    return {"run": worst["id"], "author": author["name"], "failed": len(failed)}


def _slowest_classic(branch: str) -> Classic:
    failed = yield from listed("builds__list_runs", branch=branch, status="failed")
    worst = max(failed, key=lambda run: (run["seconds"], run["id"]))
    (author,) = yield [("people__get_employee", {"id": worst["author_id"]})]
    return {"run": worst["id"], "author": author["name"], "failed": len(failed)}


SLOWEST = Family(
    "slowest",
    "How many runs on the branch $branch failed, which of them took longest (its id as run), and "
    "what is its author called?",
    hard=True,
    candidates=tuple({"branch": branch} for branch in ("main", "next", "hotfix", "docs")),
    truth=_slowest,
    classic=_slowest_classic,
    searches=("list build runs failed branch", "get employee name"),
    manuals=("builds.list_runs", "people.get_employee"),
    program="""
runs = []
page = 1
for _ in range(20):
    told = builds.list_runs(filter={"branch": "$branch", "status": "failed"}, page=page)
    runs += told["items"]
    if not told["next_page"]:
        break
    page = told["next_page"]
worst = max(runs, key=lambda run: (run["seconds"], run["id"]))
author = people.get_employee(id=worst["author_id"])
result = {"run": worst["id"], "author": author["name"], "failed": len(runs)}
""",
)


# -- the largest files ------------------------------------------------------------------------


def _largest(company: Company, folder: str) -> Any:
    found = company.all("files.files", folder_id=folder)
    top = sorted(found, key=lambda file: (-file["bytes"], file["id"]))[:3]
    return [[f["path"], known(company, "people.employees", f["owner_id"])["name"]] for f in top]


def _largest_classic(folder: str) -> Classic:
    found = yield from listed("files__list_files", folder_id=folder)
    top = sorted(found, key=lambda file: (-file["bytes"], file["id"]))[:3]
    owners = yield [("people__get_employee", {"id": file["owner_id"]}) for file in top]
    return [[file["path"], owner["name"]] for file, owner in zip(top, owners, strict=True)]


LARGEST = Family(
    "largest",
    "Which are the three largest files in $folder, largest first, and who owns each? Answer with "
    "pairs of path and name.",
    hard=True,
    candidates=tuple({"folder": NOUNS["files.folders"].id_of(n)} for n in range(1, 6)),
    truth=_largest,
    classic=_largest_classic,
    searches=("list files in folder", "get employee name"),
    manuals=("files.list_files", "people.get_employee"),
    program="""
found = []
page = 1
for _ in range(20):
    told = files.list_files(filter={"folder_id": "$folder"}, page=page)
    found += told["items"]
    if not told["next_page"]:
        break
    page = told["next_page"]
top = sorted(found, key=lambda file: (-file["bytes"], file["id"]))[:3]
owners = parallel([call(people.get_employee, id=file["owner_id"]) for file in top])
result = [[top[i]["path"], owners[i]["name"]] for i in range(len(top))]
""",
)
LOOKUPS = (BUYER, MANAGER, SEVERITIES, OWED, RETURNED, AWAY, SLOWEST, LARGEST)
