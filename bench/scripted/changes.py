"""Tasks that change data: under a condition, for many records concurrently, or after an error."""

from typing import Any

from scripted.company import Company
from scripted.families import Classic, Family, distinct, fetched, known, listed, month
from scripted.nouns import NOUNS


def _ids(path: str) -> tuple[str, ...]:
    noun = NOUNS[path]
    return tuple(noun.id_of(number) for number in range(1, noun.count + 1))


# -- reorder low stock ------------------------------------------------------------------------


def _restock(company: Company, warehouse: str) -> Any:
    low = [
        item
        for item in company.all("stock.items", warehouse_id=warehouse)
        if item["quantity"] < item["reorder_level"]
    ]
    for item in low:
        bought = {"item_id": item["id"], "quantity": item["reorder_level"] * 2, "status": "open"}
        company.did("stock.purchases", "create", bought)
    return sorted(item["id"] for item in low)


def _restock_classic(warehouse: str) -> Classic:
    items = yield from listed("stock__list_items", warehouse_id=warehouse)
    low = [item for item in items if item["quantity"] < item["reorder_level"]]
    yield [
        (
            "stock__create_purchase",
            {"item_id": item["id"], "quantity": item["reorder_level"] * 2, "status": "open"},
        )
        for item in low
    ]
    return sorted(item["id"] for item in low)


RESTOCK = Family(
    "restock",
    "Open a purchase of twice the reorder level for every item in $warehouse of which there is "
    "less than its reorder level, and tell me the ids of those items, sorted.",
    hard=True,
    candidates=tuple({"warehouse": each} for each in _ids("stock.warehouses")[:6]),
    truth=_restock,
    classic=_restock_classic,
    searches=("list stock items in warehouse", "create purchase of item"),
    manuals=("stock.list_items",),
    program="""
items = stock.list_items(filter={"warehouse_id": "$warehouse"}, page_size=25)["items"]
low = [item for item in items if item["quantity"] < item["reorder_level"]]
parallel([
    call(stock.create_purchase, item_id=i["id"], quantity=i["reorder_level"] * 2, status="open")
    for i in low
])
result = sorted([item["id"] for item in low])
""",
)


# -- book a large enough room -----------------------------------------------------------------


def _booking(company: Company, id: str) -> Any:  # noqa: A002
    event = known(company, "calendar.events", id)
    place = known(company, "calendar.rooms", event["room_id"])
    if place["seats"] >= event["attendees"]:
        return "kept"
    fitting = company.all("calendar.rooms", seats={"least": event["attendees"]})
    new = min(fitting, key=lambda place: (place["seats"], place["id"]))["id"]
    company.did("calendar.events", "update", {"id": id, "room_id": new})
    return new


def _booking_classic(id: str) -> Classic:  # noqa: A002
    (event,) = yield [("calendar__get_event", {"id": id})]
    (place,) = yield [("calendar__get_room", {"id": event["room_id"]})]
    if place["seats"] >= event["attendees"]:
        return "kept"
    fitting = yield from listed("calendar__list_rooms", seats={"least": event["attendees"]})
    new = min(fitting, key=lambda place: (place["seats"], place["id"]))["id"]
    yield [("calendar__update_event", {"id": id, "changes": {"room_id": new}})]
    return new


BOOKING = Family(
    "room",
    "If the room of $id has fewer seats than the event has attendees, move it to the room with the "
    "fewest seats that is large enough (the first by id, if several) and tell me that room's id; "
    "else say kept.",
    hard=True,
    candidates=tuple({"id": each} for each in _ids("calendar.events")[:30:3]),
    truth=_booking,
    classic=_booking_classic,
    searches=("get calendar event", "list rooms by seats", "get room", "update event room"),
    manuals=("calendar.get_event", "calendar.list_rooms"),
    program="""
event = calendar.get_event(id="$id")
room = calendar.get_room(id=event["room_id"])
if room["seats"] >= event["attendees"]:
    result = "kept"
else:
    fitting = calendar.list_rooms(filter={"seats": {"least": event["attendees"]}})["items"]
    new = min(fitting, key=lambda each: (each["seats"], each["id"]))["id"]
    calendar.update_event(id="$id", changes={"room_id": new})
    result = new
""",
)


# -- refund overpayments ----------------------------------------------------------------------


def _credit(company: Company, id: str) -> Any:  # noqa: A002
    invoice = known(company, "billing.invoices", id)
    paid = sum(each["amount_cents"] for each in company.all("billing.payments", invoice_id=id))
    over = paid - invoice["amount_cents"]
    if over > 0:
        named = {"name": f"overpaid {id}", "weight": over}
        company.did("billing.credits", "create", named)
    return max(over, 0)


def _credit_classic(id: str) -> Classic:  # noqa: A002
    (invoice,) = yield [("billing__get_invoice", {"id": id})]
    payments = yield from listed("billing__list_payments", invoice_id=id)
    over = sum(each["amount_cents"] for each in payments) - invoice["amount_cents"]
    if over > 0:
        yield [("billing__create_credit", {"name": f"overpaid {id}", "weight": over})]
    return max(over, 0)


CREDIT = Family(
    "credit",
    "If more was paid for $id than it is for, create a credit called 'overpaid $id' whose weight "
    "is the excess in cents. Tell me the excess, or 0.",
    hard=True,
    candidates=tuple({"id": each} for each in _ids("billing.invoices")[:60:5]),
    truth=_credit,
    classic=_credit_classic,
    searches=("get invoice amount", "list payments of invoice", "create credit"),
    manuals=("billing.get_invoice", "billing.list_payments"),
    program="""
invoice = billing.get_invoice(id="$id")
paid = 0
for payment in billing.list_payments(filter={"invoice_id": "$id"}, page_size=25)["items"]:
    paid += payment["amount_cents"]
over = paid - invoice["amount_cents"]
if over > 0:
    billing.create_credit(name="overpaid $id", weight=over)
result = max(over, 0)
""",
)


# -- ending contracts -------------------------------------------------------------------------


def _ending(company: Company, month_number: int) -> Any:
    final = company.all("legal.contracts", ends_on=month(month_number))
    for contract in final:
        to = known(company, "people.employees", contract["owner_id"])["email"]
        company.did("mail.letters", "create", _letter(to, contract))
    return sorted(contract["title"] for contract in final)


def _letter(to: str, contract: dict[str, Any]) -> dict[str, str]:
    return {"to": to, "subject": contract["title"], "body": f"Ends on {contract['ends_on']}"}


def _ending_classic(month_number: int) -> Classic:
    final = yield from listed("legal__list_contracts", ends_on=month(month_number))
    owners = yield from fetched("people__get_employee", distinct(final, "owner_id"))
    yield [
        ("mail__create_letter", _letter(owners[contract["owner_id"]]["email"], contract))
        for contract in final
    ]
    return sorted(contract["title"] for contract in final)


ENDING = Family(
    "ending",
    "Write a letter to the owner of every contract that ends in month $month_number of 2026: the "
    "title as subject, and as body 'Ends on' with the day. Tell me the titles, sorted.",
    hard=True,
    candidates=tuple({"month_number": number} for number in range(1, 13)),
    truth=_ending,
    classic=_ending_classic,
    searches=("list contracts by end day", "get employee email", "create letter to"),
    manuals=("legal.list_contracts", "people.get_employee"),
    program="""
ends = {"least": "2026-$month_number-01", "most": "2026-$month_number-28"}
contracts = legal.list_contracts(filter={"ends_on": ends}, page_size=25)["items"]
ids = sorted({each["owner_id"]: True for each in contracts}.keys())
owners = parallel([call(people.get_employee, id=one) for one in ids])
emails = {owner["id"]: owner["email"] for owner in owners}
parallel([
    call(mail.create_letter, to=emails[each["owner_id"]], subject=each["title"],
         body="Ends on " + each["ends_on"])
    for each in contracts
])
result = sorted([each["title"] for each in contracts])
""",
)


# -- a missing customer -----------------------------------------------------------------------


def _gone(company: Company, id: str, word: str) -> Any:  # noqa: A002
    found = company.get("crm.customers", id)
    if found:
        return found["id"]
    every = company.all("crm.customers")
    return next((each["id"] for each in every if word in each["name"]), None)


def _gone_classic(id: str, word: str) -> Classic:  # noqa: A002
    (found,) = yield [("crm__get_customer", {"id": id})]
    if found:
        return found["id"]
    (items,) = yield [("crm__search_customers", {"query": word})]
    return next((each["id"] for each in items["items"] if word in each["name"]), None)


GONE = Family(
    "gone",
    "Give me the id of the customer $id; if there is none, the first whose name holds $word.",
    hard=False,
    candidates=tuple(
        {"id": f"customer-{number:04}", "word": word}
        for number, word in (
            (61, "iris"),
            (62, "cobalt"),
            (63, "linden"),
            (64, "onyx"),
            (71, "pine"),
        )
    ),
    truth=_gone,
    classic=_gone_classic,
    searches=("get customer by id", "search customers by word"),
    manuals=("crm.search_customers",),
    program="""
got = try_call(crm.get_customer, id="$id")
if got.ok:
    result = got.value["id"]
else:
    found = crm.search_customers(query="$word")["items"]
    named = [each["id"] for each in found if "$word" in each["name"]]
    result = named[0] if named else None
""",
)


# -- channel messages -------------------------------------------------------------------------


def _digest(company: Company, topic: str) -> Any:
    channels = company.all("chat.channels", topic=topic)
    return {
        each["name"]: len(company.all("chat.messages", channel_id=each["id"])) for each in channels
    }


def _digest_classic(topic: str) -> Classic:
    channels = yield from listed("chat__list_channels", topic=topic)
    counts = yield [
        ("chat__count_messages", {"filter": {"channel_id": each["id"]}}) for each in channels
    ]
    return {each["name"]: item["count"] for each, item in zip(channels, counts, strict=True)}


DIGEST = Family(
    "digest",
    "How many messages are in each channel about $topic, by the channel's name?",
    hard=False,
    candidates=tuple({"topic": topic} for topic in ("release", "outage", "hiring", "social")),
    truth=_digest,
    classic=_digest_classic,
    searches=("list channels by topic", "count messages in channel"),
    manuals=("chat.list_channels", "chat.count_messages"),
    program="""
channels = chat.list_channels(filter={"topic": "$topic"}, page_size=25)["items"]
counts = parallel([call(chat.count_messages, filter={"channel_id": c["id"]}) for c in channels])
result = {channels[i]["name"]: counts[i]["count"] for i in range(len(channels))}
""",
)


# -- vehicles due for service -----------------------------------------------------------------


def _due(company: Company, depot: str, day: str) -> Any:
    vehicles = company.all("fleet.vehicles", depot=depot)
    due = [each for each in vehicles if each["kilometres"] >= each["service_at"]]
    for vehicle in due:
        company.did("fleet.services", "create", {"vehicle_id": vehicle["id"], "booked_on": day})
    return sorted(each["plate"] for each in due)


def _due_classic(depot: str, day: str) -> Classic:
    vehicles = yield from listed("fleet__list_vehicles", depot=depot)
    due = [each for each in vehicles if each["kilometres"] >= each["service_at"]]
    yield [
        ("fleet__create_service", {"vehicle_id": vehicle["id"], "booked_on": day})
        for vehicle in due
    ]
    return sorted(each["plate"] for each in due)


DUE = Family(
    "due",
    "Book a service on $day for each vehicle of the depot $depot that has driven as many "
    "kilometres as it is to be serviced at, or more. Tell me their plates, sorted.",
    hard=True,
    candidates=tuple(
        {"depot": depot, "day": "2026-05-11"} for depot in ("harbour", "airport", "centre", "mill")
    ),
    truth=_due,
    classic=_due_classic,
    searches=("list vehicles of depot", "create service booking for vehicle"),
    manuals=("fleet.list_vehicles",),
    slip="""
vehicles = fleet.list_vehicles(filter={"depot": "$depot"}, page_size=25)["items"]
due = [each for each in vehicles if each["kilometres"] >= each["service_at"]]
for each in due:
    fleet.create_services(vehicle_id=each["id"], booked_on="$day")
result = sorted([each["plate"] for each in due])
""",
    program="""
vehicles = fleet.list_vehicles(filter={"depot": "$depot"}, page_size=25)["items"]
due = [each for each in vehicles if each["kilometres"] >= each["service_at"]]
for each in due:
    fleet.create_service(vehicle_id=each["id"], booked_on="$day")
result = sorted([each["plate"] for each in due])
""",
)


# -- drafts for review ------------------------------------------------------------------------


def _review(company: Company, space: str) -> Any:
    drafts = company.all("wiki.pages", space_id=space, status="draft")
    for page in drafts:
        company.did("wiki.pages", "update", {"id": page["id"], "status": "in_review"})
    return len(drafts)


def _review_classic(space: str) -> Classic:
    drafts = yield from listed("wiki__list_pages", space_id=space, status="draft")
    yield [
        ("wiki__update_page", {"id": page["id"], "changes": {"status": "in_review"}})
        for page in drafts
    ]
    return len(drafts)


REVIEW = Family(
    "review",
    "Put every draft page of $space into review (in_review), and tell me how many there were.",
    hard=False,
    candidates=tuple({"space": each} for each in _ids("wiki.spaces")[:8]),
    truth=_review,
    classic=_review_classic,
    searches=("list wiki pages by status and space", "update page status"),
    manuals=("wiki.list_pages",),
    program="""
drafts = wiki.list_pages(filter={"space_id": "$space", "status": "draft"}, page_size=25)["items"]
parallel([call(wiki.update_page, id=d["id"], changes={"status": "in_review"}) for d in drafts])
result = len(drafts)
""",
)
DEEDS = (RESTOCK, BOOKING, CREDIT, ENDING, GONE, DIGEST, DUE, REVIEW)
