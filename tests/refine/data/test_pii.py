"""Personal data: what has the form and the check digits is found, what only looks like it is not."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.refine.data.pii import KINDS, find, luhn, mask


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "write to Jane.Doe+news@mail.example.co.uk."),
        ("phone", "call +49 (30) 1234 5678 now"),
        ("phone", "call (212) 555-0187"),
        ("phone", "手机13812345678。"),
        ("card", "paid with 4111 1111 1111 1111 yesterday"),
        ("card", "5500-0000-0000-0004"),
        ("iban", "to DE89 3704 0044 0532 0130 00 please"),
        ("iban", "GB82WEST12345698765432"),
        ("us_ssn", "SSN 123-45-6789"),
        ("chinese_id", "身份证号11010519491231002X,请核对"),
        ("ip_address", "from 8.8.8.8 today"),
        ("secret", "key AKIAIOSFODNN7EXAMPLE here"),
        ("secret", "-----BEGIN RSA PRIVATE KEY-----"),
        ("secret", "token ghp_" + "a1B2" * 9),
    ],
)
def test_found(kind: str, text: str):
    assert [finding.kind for finding in find(text)] == [kind]
    masked = mask(text, find(text))
    assert f"[{kind.upper()}]" in masked
    assert find(masked) == []


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # the check digit is wrong
        "DE89 3704 0044 0532 0130 01",
        "110105194912310021",
        "110105199913310020",  # born in a month 13
        "123-00-6789",
        "192.168.0.1 and 127.0.0.1 and 999.1.1.1",
        "What is 4823 + 517? 4823 + 500 = 5323",
        "user@localhost",
        "3.14159265358979",
        "0000 0000 0000 0000",
        "in 2024-05-17 at 10:15",
    ],
)
def test_not_found(text: str):
    assert find(text) == []


def test_each_place_is_found_once():
    text = "Jane (jane@example.com, +44 20 7946 0958) pays DE89370400440532013000 from 4111111111111111."
    assert [finding.kind for finding in find(text)] == ["email", "phone", "iban", "card"]
    assert mask(text, find(text)) == "Jane ([EMAIL], [PHONE]) pays [IBAN] from [CARD]."
    assert set(KINDS) >= {"email", "phone", "iban", "card"}


@given(st.integers(10**12, 10**18))
def test_luhn_finds_every_changed_digit(number: int):
    digits = str(number)
    check = next(digit for digit in "0123456789" if luhn(digits + digit))
    for place in range(len(digits)):
        changed = digits[:place] + str((int(digits[place]) + 1) % 10) + digits[place + 1 :]
        assert not luhn(changed + check)


@given(st.text(alphabet="a1@.-+ ()X[]", max_size=400))
def test_masking_leaves_the_rest(text: str):
    findings = find(text)
    assert all(one.end <= two.start for one, two in itertools.pairwise(findings))
    assert len(mask(text, [])) == len(text)
    mask(text, findings)


@pytest.mark.parametrize("text", ["a@" * 50_000, "1 " * 50_000, "a." * 50_000, "+1 (" * 40_000, "AB12 " * 40_000])
def test_no_text_takes_long(text: str):
    began = time.process_time()
    find(text)
    assert time.process_time() - began < 20, "linear would be well below a second"
