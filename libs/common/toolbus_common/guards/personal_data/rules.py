"""The rules for personal data: patterns, words near them, checks and scores (no I/O)."""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from toolbus_common.guards.personal_data import checks

_BETWEEN: Final = r"[^0-9\r]{0,40}?"  # between a word and the number that it names
_OMOCODE: Final = "[0-9LMNPQRSTUV]"  # a digit, or the letter that replaces it
_SHORT_WORD: Final = 4
_MONTH: Final = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"


class Rule(Struct, frozen=True):
    """A rule: `pattern` finds candidates, in the first group if it has one; `check` decides.

    With `words`, a match near one of them has the score `near`. If `alone` is 0, a match counts
    only if one of the words precedes it.
    """

    id: str
    pattern: str
    check: Callable[[str], bool]
    alone: float
    near: float = 1.0
    words: str = ""
    default: bool = True

    @property
    def expression(self) -> str:
        """The pattern. If it applies only near one of `words`, it begins with these words."""
        if self.alone:
            return self.pattern
        return rf"(?i:{words_of(self.words)}){_BETWEEN}(?:{self.pattern})"


def words_of(words: str) -> str:
    """Return an expression for words, which may be parts of names: `tax_id`, `userTaxId`.

    A short word matches only if no further lower-case letter follows.
    """
    return "|".join(_word(each) for each in words.split("|"))


def _word(word: str) -> str:
    rest = word[1:].replace(" ", "[ _-]?")
    end = r"(?:\b|_|(?-i:[A-Z]))" if len(word) <= _SHORT_WORD else ""
    return rf"(?:\b|_){word[0]}{rest}{end}|(?-i:[a-z]{word[0].upper()}){rest}{end}"


RULES: Final = (
    Rule(
        "email",
        r"\b([A-Za-z0-9][\w.%+\-]*@(?:[A-Za-z0-9\-]+\.)+[A-Za-z]{2,24})\b",
        checks.email,
        0.95,
    ),
    Rule(
        "credit-card",
        r"\b((?:3[0-9]{3}|[4-6][0-9]{3}|2[2-7][0-9]{2})(?:[ -]?[0-9]{4}){2}[ -]?[0-9]{1,7}"
        r"|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}|3[068][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{4})\b",
        checks.card,
        0.9,
        words="card|pan|visa|mastercard|amex|credit|debit|payment",
    ),
    Rule(
        "iban",
        r"\b([A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)\b",
        checks.iban_number,
        1.0,
    ),
    Rule(
        "phone",
        r"(\+[1-9][0-9]{0,2}[ .\-]?(?:\([0-9]{1,4}\)[ .\-]?)?[0-9](?:[ .\-/]?[0-9]){5,13})\b",
        checks.phone,
        0.7,
        0.95,
        words="phone|tel|mobile|cell|fax|call|contact|whatsapp|sms",
    ),
    Rule(
        "phone",
        r"(\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .\-][0-9]{4}"
        r"|\b[2-9][0-9]{2}[.\-][2-9][0-9]{2}[.\-][0-9]{4})\b",
        checks.north_american_phone,
        0.6,
        0.95,
        words="phone|tel|mobile|cell|fax|call|contact|sms",
    ),
    Rule(
        "phone",
        r"(\(?[0-9](?:[ .\-/()]{0,2}[0-9]){6,13})\b",
        checks.phone_near_word,
        0.0,
        0.8,
        words="phone|telephone|tel|mobile|fax|whatsapp|telefon|handy|telefono|tel.fono|cell phone",
    ),
    Rule(
        "us-ssn",
        r"\b([0-8][0-9]{2}-[0-9]{2}-[0-9]{4})\b",
        checks.social_security,
        0.7,
        words="ssn|social security|social|tax id|taxpayer",
    ),
    Rule(
        "us-ssn",
        r"\b([0-8][0-9]{2}[ .]?[0-9]{2}[ .]?[0-9]{4})\b",
        checks.social_security,
        0.0,
        0.9,
        words="ssn|social security",
    ),
    Rule(
        "us-itin",
        r"\b(9[0-9]{2}-[5-9][0-9]-[0-9]{4})\b",
        checks.taxpayer,
        0.7,
        words="itin|tax id|taxpayer|ssn",
    ),
    Rule(
        "uk-nhs",
        r"\b([0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4})\b",
        checks.health_service,
        0.0,
        words="nhs",
    ),
    Rule(
        "uk-nino",
        r"\b([A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D])\b",
        checks.british_insurance,
        0.7,
        words="nino|national insurance|ni number",
    ),
    Rule(
        "de-tax-id",
        r"\b([1-9][0-9] ?[0-9]{3} ?[0-9]{3} ?[0-9]{3})\b",
        checks.german_tax,
        0.0,
        words="steuer|idnr|tax id|tin|identifikationsnummer",
    ),
    Rule(
        "fr-nir",
        r"\b([12] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2})\b",
        checks.french_insurance,
        0.85,
        words="nir|s.cu|assurance|insee|securite|num.ro",
    ),
    Rule("es-dni", r"\b([0-9]{8}-?[A-HJ-NP-TV-Z])\b", checks.spanish_dni, 0.75, words="dni|nif"),
    Rule("es-nie", r"\b([XYZ]-?[0-9]{7}-?[A-HJ-NP-TV-Z])\b", checks.spanish_nie, 0.85, words="nie"),
    Rule(
        "it-fiscal-code",
        rf"\b((?i:[a-z]{{6}}{_OMOCODE}{{2}}[a-ehlmprst]{_OMOCODE}{{2}}[a-z]{_OMOCODE}{{3}}[a-z]))\b",
        checks.italian_code,
        0.95,
        words="codice fiscale|fiscal|cf",
    ),
    Rule(
        "nl-bsn",
        r"\b([0-9]{4}\.?[0-9]{2}\.?[0-9]{2,3})\b",
        checks.dutch_bsn,
        0.0,
        words="bsn|burgerservice|sofi",
    ),
    Rule(
        "be-national-number",
        r"\b([0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2})\b",
        checks.belgian_number,
        0.95,
    ),
    Rule(
        "be-national-number",
        r"\b([0-9]{11})\b",
        checks.belgian_number,
        0.0,
        words="rijksregister|registre national|national number|niss|insz",
    ),
    Rule("pl-pesel", r"\b([0-9]{11})\b", checks.polish_pesel, 0.0, words="pesel"),
    Rule(
        "se-personal-number",
        r"\b((?:19|20)?[0-9]{6}[-+][0-9]{4})\b",
        checks.swedish_number,
        0.8,
        words="personnummer|personal number|ssn",
    ),
    Rule(
        "se-personal-number",
        r"\b((?:19|20)?[0-9]{10})\b",
        checks.swedish_number,
        0.0,
        words="personnummer|personal number",
    ),
    Rule(
        "no-birth-number",
        r"\b([0-9]{6} ?[0-9]{5})\b",
        checks.norwegian_number,
        0.0,
        words="f.dselsnummer|fnr|personnummer|national id",
    ),
    Rule(
        "fi-personal-code",
        r"\b([0-3][0-9][01][0-9]{3}[-+A-FU-Y][0-9]{3}[0-9A-FHJ-NPR-Y])\b",
        checks.finnish_hetu,
        0.95,
        words="hetu|henkil",
    ),
    Rule("br-cpf", r"\b([0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2})\b", checks.brazilian_cpf, 0.95),
    Rule("br-cpf", r"\b([0-9]{11})\b", checks.brazilian_cpf, 0.0, words="cpf"),
    Rule(
        "br-cnpj",
        r"\b([0-9]{2}\.[0-9]{3}\.[0-9]{3}/[0-9]{4}-[0-9]{2})\b",
        checks.brazilian_cnpj,
        0.95,
    ),
    Rule("br-cnpj", r"\b([0-9]{14})\b", checks.brazilian_cnpj, 0.0, words="cnpj"),
    Rule(
        "in-aadhaar",
        r"\b([2-9][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4})\b",
        checks.indian_aadhaar,
        0.0,
        words="aadhaar|aadhar|adhaar|uidai|uid",
    ),
    Rule(
        "in-pan",
        r"\b([A-Z]{3}[PCHFATBLJG][A-Z][0-9]{4}[A-Z])\b",
        checks.indian_pan,
        0.6,
        words="pan|income tax",
    ),
    Rule(
        "ca-sin",
        r"\b([0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3})\b",
        checks.canadian_sin,
        0.0,
        words="sin|social insurance|nas",
    ),
    Rule(
        "au-tfn",
        r"\b([0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{2,3})\b",
        checks.australian_tfn,
        0.0,
        words="tfn|tax file",
    ),
    Rule(
        "au-medicare",
        r"\b([2-6][0-9]{3}[ -]?[0-9]{5}[ -]?[0-9](?:[ /-]?[0-9])?)\b",
        checks.australian_medicare,
        0.0,
        words="medicare",
    ),
    Rule(
        "passport",
        r"\b([A-Z0-9]{6,9})\b",
        checks.document,
        0.0,
        0.7,
        words="passport|reisepass|passeport|pasaporte|passaporto",
    ),
    Rule(
        "driving-license",
        r"\b([A-Z]{0,5}[0-9][A-Z0-9-]{5,15})\b",
        checks.document,
        0.0,
        0.7,
        words="driver'?s licen[cs]e|driving licen[cs]e|dl number|f.hrerschein",
    ),
    Rule(
        "date-of-birth",
        r"\b([0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}"
        r"|[0-9]{1,2}[-/.][0-9]{1,2}[-/.](?:[0-9]{4}|[0-9]{2})"
        rf"|[0-9]{{1,2}}(?:st|nd|rd|th)? (?i:{_MONTH}) [0-9]{{4}})\b",
        checks.birth_date,
        0.0,
        0.9,
        words="dob|date of birth|birth date|birthday|born|birth|geburtsdatum|geboren|naissance"
        "|nacimiento|nascita",
    ),
    Rule(
        "date-of-birth",
        rf"\b((?i:{_MONTH}) [0-9]{{1,2}},? [0-9]{{4}})\b",
        checks.birth_date,
        0.0,
        0.9,
        words="dob|date of birth|birth date|birthday|born|birth",
    ),
    Rule(
        "bitcoin-address",
        r"\b([13][1-9A-HJ-NP-Za-km-z]{25,34}|bc1[02-9ac-hj-np-z]{11,71})\b",
        checks.bitcoin_address,
        0.95,
    ),
    Rule(
        "ethereum-address",
        r"\b(0x[0-9a-fA-F]{40})\b",
        checks.anything,
        0.0,
        0.8,
        words="ethereum|eth|wallet|erc20",
    ),
    Rule(
        "ip-address",
        r"\b([0-9]{1,3}(?:\.[0-9]{1,3}){3})\b",
        checks.internet_address,
        0.6,
        default=False,
    ),
    Rule(
        "ip-address",
        r"\b((?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,6})\b",
        checks.ipv6_address,
        0.6,
        default=False,
    ),
    Rule(
        "mac-address",
        r"\b([0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5})\b",
        checks.anything,
        0.6,
        default=False,
    ),
)
