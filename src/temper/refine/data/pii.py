"""Personal data and secrets in text: found by form, and by check digits wherever the form has some.

Finds what a pattern can find: addresses, numbers, keys. Names and stories about people are beyond it. Every pattern is
bounded, so that no text takes more than linear time.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Final


@dataclass(frozen=True, slots=True)
class Finding:
    """One place in a text."""

    kind: str
    start: int
    end: int


_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20,
    "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27,
    "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24,
    "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TR": 26,
}  # fmt: skip
_CN_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 13 <= len(digits) <= 19 and digits[0] in "3456" and len(set(digits)) > 1 and luhn(digits)


def _iban(text: str) -> bool:
    """Length by country, and remainder 1 of 97 (ISO 13616)."""
    plain = text.replace(" ", "")
    if len(plain) != _IBAN_LENGTHS.get(plain[:2]):
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _chinese_id(text: str) -> bool:
    """A resident's number: born on a day that exists, and the check character of ISO 7064 (MOD 11-2)."""
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(text[:17], _CN_WEIGHTS, strict=True))
    return born.year >= 1900 and "10X98765432"[total % 11] == text[17].upper()


def _public_address(text: str) -> bool:
    try:
        return ipaddress.IPv4Address(text).is_global
    except ValueError:
        return False


def _phone(text: str) -> bool:
    return 8 <= sum(char.isdigit() for char in text) <= 15


def _always(text: str) -> bool:
    return True


_KINDS: Final[tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...]] = (
    (
        "secret",
        re.compile(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----|(?<![A-Za-z0-9])(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}"
            r"|sk-[A-Za-z0-9_-]{20,200}|xox[baprs]-[A-Za-z0-9-]{10,100}|AIza[0-9A-Za-z_-]{35}"
            r"|eyJ[A-Za-z0-9_-]{10,500}\.[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,500})"
        ),
        _always,
    ),
    ("email", re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![\w-])"), _always),
    (
        "iban",
        re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"),
        _iban,
    ),
    ("chinese_id", re.compile(r"(?<!\d)[1-9]\d{16}[\dXx](?![\dXx])"), _chinese_id),
    ("card", re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d-])"), _card),
    ("us_ssn", re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"), _always),
    ("ip_address", re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"), _public_address),
    (
        "phone",
        re.compile(
            r"(?<![\w+])\+\d{1,3}(?:[ .-]?(?:\(\d{1,4}\)|\d{1,4})){2,5}(?!\d)"  # international
            r"|(?<![\w.-])(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\d-])"  # North America
            r"|(?<![\d.])1[3-9]\d(?:[ -]?\d{4}){2}(?![\d.])"  # Chinese mobile
        ),
        _phone,
    ),
)
"""In the order in which they claim a place: an IBAN is no phone number."""

KINDS: Final = tuple(kind for kind, _, _ in _KINDS)


def find(text: str) -> list[Finding]:
    """Every finding, in order; none overlaps another."""
    found: list[Finding] = []
    for kind, pattern, holds in _KINDS:
        for match in pattern.finditer(text):
            if holds(match[0]) and not any(match.start() < other.end and other.start < match.end() for other in found):
                found.append(Finding(kind, match.start(), match.end()))
    return sorted(found, key=lambda finding: finding.start)


def mask(text: str, findings: list[Finding]) -> str:
    """The text with each finding replaced by its kind: `[EMAIL]`."""
    parts, at = [], 0
    for finding in findings:
        parts += [text[at : finding.start], f"[{finding.kind.upper()}]"]
        at = finding.end
    return "".join(parts) + text[at:]
