"""Checks of numbers that a pattern found: checksums, lengths, prefixes and dates (no I/O)."""

from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Final

import stdnum.luhn
from stdnum import bitcoin, iban
from stdnum.au import tfn
from stdnum.be import nn as be_nn
from stdnum.br import cnpj, cpf
from stdnum.ca import sin
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.us import itin, ssn

_NO_DOMAINS = frozenset(
    {"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "py", "json", "html", "local"}
)
_ISSUERS: Final = (  # first prefix, last prefix, lengths
    (4, 4, {13, 16}),  # Visa
    (51, 55, {16}),  # Mastercard
    (2221, 2720, {16}),
    (34, 34, {15}),  # American Express
    (37, 37, {15}),
    (6011, 6011, {16}),  # Discover
    (644, 659, {16}),
    (300, 305, {14}),  # Diners Club
    (36, 36, {14}),
    (38, 38, {14}),
    (3528, 3589, {16}),  # JCB
    (62, 62, {16, 17, 18, 19}),  # UnionPay
)
_NINO_NOT = frozenset({"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"})
_MEDICARE_WEIGHTS = (1, 3, 7, 9, 1, 3, 7, 9)
_FEWEST_DIGITS = 5  # of a document
_LARGEST_BYTE = 255
_YEAR, _FIRST_YEAR = 4, 1900
_SHORTEST_PHONE, _LONGEST_PHONE = 8, 15  # digits, with the country's code (E.164)


def _digits(value: str) -> str:
    return "".join(char for char in value if char.isdigit())


def _varied(digits: str) -> bool:
    """Return whether the digits are not all the same, as in an example."""
    return len(set(digits)) > 1


def email(value: str) -> bool:
    """Return whether a value is a person's address, not a file or a login of a repository."""
    local, _, domain = value.rpartition("@")
    return domain.rpartition(".")[2].lower() not in _NO_DOMAINS and local.lower() != "git"


def card(value: str) -> bool:
    """Return whether a value has the prefix and length of an issuer, and the Luhn checksum."""
    digits = _digits(value)
    issued = any(
        first <= int(digits[: len(str(first))]) <= last and len(digits) in sizes
        for first, last, sizes in _ISSUERS
    )
    return issued and _varied(digits) and bool(stdnum.luhn.is_valid(digits))


def phone(value: str) -> bool:
    """Return whether a value has the digits of an international phone number."""
    digits = _digits(value)
    return _SHORTEST_PHONE <= len(digits) <= _LONGEST_PHONE and _varied(digits)


def phone_near_word(value: str) -> bool:
    """Return whether a value can be a phone number if a word near it says so."""
    digits = _digits(value)
    return len(digits) - 1 in range(6, _LONGEST_PHONE) and _varied(digits)


def north_american_phone(value: str) -> bool:
    """Return whether area and exchange can exist in the North American Numbering Plan."""
    digits = _digits(value)[-10:]
    return digits[0] > "1" and digits[3] > "1" and _varied(digits)


def british_insurance(value: str) -> bool:
    """Return whether a national insurance number has a prefix that is in use."""
    return value[:2].upper() not in _NINO_NOT


def australian_medicare(value: str) -> bool:
    """Return whether the ninth digit of a Medicare number is the checksum of those before it."""
    digits = [int(each) for each in _digits(value)]
    summed = sum(a * b for a, b in zip(digits, _MEDICARE_WEIGHTS, strict=False))
    return summed % 10 == digits[8]


def document(value: str) -> bool:
    """Return whether a value has enough digits for the number of a passport or a licence."""
    return len(_digits(value)) >= _FEWEST_DIGITS


def birth_date(value: str) -> bool:
    """Return whether a date can be the birth date of a living person."""
    parts = value.replace("/", "-").replace(".", "-").replace(" ", "-").split("-")
    years = [int(part) for part in parts if len(part) == _YEAR and part.isdigit()]
    return all(_FIRST_YEAR <= year <= datetime.now(UTC).year for year in years)


def internet_address(value: str) -> bool:
    """Return whether all four numbers are bytes, and the address is not one of this host."""
    parts = [int(part) for part in value.split(".")]
    return max(parts) <= _LARGEST_BYTE and parts[0] not in {0, 127}


def ipv6_address(value: str) -> bool:
    """Return whether a value is an address of IP version 6."""
    try:
        return IPv6Address(value).is_global
    except ValueError:
        return False


def anything(_value: str) -> bool:
    """Return true: the pattern is precise enough."""
    return True


iban_number = iban.is_valid
social_security = ssn.is_valid
taxpayer = itin.is_valid
health_service = nhs.is_valid
german_tax = idnr.is_valid
french_insurance = nir.is_valid
spanish_dni = dni.is_valid
spanish_nie = nie.is_valid
italian_code = codicefiscale.is_valid
dutch_bsn = bsn.is_valid
belgian_number = be_nn.is_valid
polish_pesel = pesel.is_valid
swedish_number = personnummer.is_valid
norwegian_number = fodselsnummer.is_valid
finnish_hetu = hetu.is_valid
brazilian_cpf = cpf.is_valid
brazilian_cnpj = cnpj.is_valid
indian_aadhaar = aadhaar.is_valid
indian_pan = pan.is_valid
canadian_sin = sin.is_valid
australian_tfn = tfn.is_valid
bitcoin_address = bitcoin.is_valid
