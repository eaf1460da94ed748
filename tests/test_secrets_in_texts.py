"""Secrets are taken out of texts wherever they stand and however the text is cut, and little else is."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.actors.context.secrets.redaction import MARGIN_CHARS, JsonRedaction, redact, redact_start
from sidecar.actors.context.secrets.rules import RULES, URL_PASSWORD, URL_TOKEN, Rule
from sidecar.state.linear import Linear
from tests.regex_texts import text_like
from tests.secret_samples import PLACES, TOKENS, some

_AROUND = (
    "{}",
    "x = '{}'\n",
    '{{"a": "{}"}}',
    "export A={}\n",
    "see ({}) for it",
    "a: {}\nb: 1\n",
    "é{} ",
    "`{}`,",
    "\\{}",
    "x\\n{}\\ny",  # in JSON
    "x\\u003d{}",
    "\\t{}",
    "a%20{}",
    "\x1b[1;32m{}\x1b[0m",  # in a coloured log
    "\\u001b[32m{}",
    '\\"{}\\"',
)
_PEM = ("pem-rsa", "pem-openssh", "pem-encrypted", "pgp", "putty")


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_is_taken_out_wherever_it_stands(name: str) -> None:
    for around in _AROUND:
        text = around.format(TOKENS[name])
        clean, count = redact(text)
        assert count, (name, around)
        assert TOKENS[name][-12:] not in clean or name in _PEM, (name, around)
        assert clean.count("\n") == text.count("\n")


@pytest.mark.parametrize("name", PLACES)
def test_a_secret_is_taken_out_where_only_its_place_tells(name: str) -> None:
    text, secret = PLACES[name]
    assert secret in text
    clean, count = redact(text)
    assert secret not in clean
    assert count


@pytest.mark.parametrize(
    "text",
    [
        "password: str",
        "def login(user: str, password: str) -> Token: ...",
        "token = get_token(request)",
        'password = "password"',
        "PASSWORD=${DB_PASSWORD}",
        "password: '{{ vault_password }}'",
        "postgres://user:password@host/db",
        "postgres://$USER:$PASSWORD@host/db",
        "https://example.org/@scope/package",
        "git@example.org:shop.git",
        "secret_key = settings.SECRET_KEY_2024_FALLBACK",
        'API_KEY = os.environ["API_KEY"]',
        "Authorization: Bearer <token>",
        'req.Header.Add("Proxy-Authorization", req.Header.Get("Proxy-Authorization"))',
        "credsV := hcl2shim.HCL2ValueFromConfigValue(raw)",
        "the sk-learn-like-name-of-a-package is fine",
        "sha512-AAAA is a checksum, a1b2c3d4 a commit",
        "test_pub_and_sub_work_with_many_names()",
        "token: 12345678901234567890",
    ],
)
def test_names_templates_and_manuals_stay_readable(text: str) -> None:
    assert redact(text) == (text, 0)


_TEXTS = st.lists(
    st.sampled_from((*TOKENS.values(), *(rule.marks[0] for rule in RULES), "://", "é", "\ud800", " ", "a", "@", "\n")),
    max_size=6,
).map("".join)


@given(_TEXTS, st.sampled_from(sorted(set(TOKENS) - set(_PEM))), _TEXTS)
def test_what_stands_around_does_not_hide_a_secret(before: str, name: str, after: str) -> None:
    clean, _ = redact(f"{before} {TOKENS[name]} {after}")
    assert f" {TOKENS[name]} " not in clean


@settings(max_examples=30)
@given(st.sampled_from(sorted(set(TOKENS) - set(_PEM))), st.integers(-300, 300), st.integers(1, 2))
def test_a_secret_is_seen_at_each_place_of_a_long_text(name: str, shift: int, piece: int) -> None:
    before = ("word " * (piece * 65_536 // 5 + 100))[: piece * 65_536 + shift] + " "
    clean, count = redact(before + TOKENS[name] + " end")
    assert count == 1
    assert clean.startswith(before)


@given(st.sampled_from(sorted(TOKENS)), st.integers(0, 400))
def test_a_cut_leaves_no_part_of_a_secret(name: str, length: int) -> None:
    before = "word " * 20
    clean, _ = redact_start(before + TOKENS[name] + " end" * 50, length)
    whole, _ = redact(before + TOKENS[name] + " end" * 50)
    assert clean == before[:length] if length <= len(before) else whole.startswith(clean[: len(whole)][:-1])
    assert TOKENS[name][-12:] not in clean or name == "putty"  # it ends with a checksum, which is no secret


def test_a_secret_that_goes_on_for_long_is_taken_out_to_its_end() -> None:
    token = "ey" + "J" + some(6000) + ".ey" + "J" + some(6000) + "." + some(60)
    clean, count = redact(f"a {token} b")
    assert (clean, count) == ("a [REDACTED:jwt] b", 1)
    assert len(token) < MARGIN_CHARS


def test_keys_and_values_of_json_are_looked_through() -> None:
    token = TOKENS["github-classic"]
    redaction = JsonRedaction(10_000)
    clean = redaction.clean({"a": [token, {token: 1}], "b": 2.5})
    assert clean == {"a": ["[REDACTED:github-token]", {"[REDACTED:github-token]": 1}], "b": 2.5}
    assert redaction.count == 2


def test_json_is_cut_to_what_is_looked_through() -> None:
    token = TOKENS["github-classic"]
    clean = JsonRedaction(4700).clean({"decisions": ["a b " * 1000, "c " * 300 + token, "never seen"]})
    assert clean["decisions"][0] == "a b " * 1000
    assert len(clean["decisions"]) == 2
    assert token[:10] not in clean["decisions"][1]


@pytest.mark.parametrize("before", ["> ", "# ", "// ", "+", "    "])
@pytest.mark.parametrize("lines", [10, 11])
def test_a_key_without_an_end_is_taken_out_of_comments_and_quotations(before: str, lines: int) -> None:
    body = [some(64) for _ in range(lines)]
    text = "".join(f"{before}{line}\n" for line in ("-----BEGIN RSA PRIVATE " + "KEY-----", *body))
    clean, count = redact(text + "def f() -> None: ...\n")
    assert count == 1
    assert not any(line in clean for line in body)
    assert "None: ..." in clean


def test_a_value_in_json_is_known_by_its_name() -> None:
    password = "Tr0ub" + "4dor&3x"
    said = {"decisions": [{"db": {"password": password}, "text": "use it"}], "api_key": some(32), "status": "success"}
    redaction = JsonRedaction(1000)
    assert redaction.clean(said) == {
        "decisions": [{"db": {"password": "[REDACTED:password]"}, "text": "use it"}],
        "api_key": "[REDACTED:secret]",
        "status": "success",
    }
    assert redaction.count == 2


@pytest.mark.parametrize("kind", sorted({rule.kind for rule in RULES}))
def test_every_text_with_a_secret_has_the_hint_of_its_form(kind: str) -> None:
    chance = random.Random(kind)
    for rule in (*RULES, URL_PASSWORD, URL_TOKEN):
        if rule.kind != kind:
            continue
        expression, hint = Linear(rule.expression.encode()), Linear(rule.hint.encode(), groups=False)
        matched = 0
        for _ in range(12):
            text = text_like(rule.expression, chance).encode()
            if expression.is_in(text):
                matched += 1
                assert hint.is_in(text) or not _has_mark(rule, text), (rule.hint, text)
        assert matched, rule


def _has_mark(rule: Rule, text: bytes) -> bool:
    places = [text.find(mark.encode()) + len(mark) for mark in rule.marks if mark.encode() in text]
    return any(not rule.next_byte or text[place : place + 1] in rule.next_byte for place in places)


@pytest.mark.parametrize("name", ["github", "aws-key", "jwt"])
def test_a_secret_is_taken_out_however_far_others_are(name: str) -> None:
    token = next(TOKENS[known] for known in TOKENS if known.startswith(name))
    for size in (0, 100, 2000, 4100, 70_000, 300_000):
        text = f"{token}\n{'plain words ' * (size // 12)}\n{token}\n"
        clean, count = redact(text)
        assert count == 2, size
        assert token[-12:] not in clean


@pytest.mark.parametrize(
    "word",
    [
        "-----BEGIN PRIVATE KEY-----\n" + "A" * 40 + "\n",
        "A",
        "password=",
        "password = 'hunter2hunter2'\n",
        "token: a1b2c3d4e5f6a7b8c9\n",
        "://a:b@",
        "sk-",
        "eyJ.",
        "Q~",
    ],
)
def test_a_text_dense_with_marks_takes_a_bounded_time(word: str) -> None:
    text = (word * (1 << 18))[: 1 << 18]
    redact(word)
    before = time.process_time()
    redact(text)
    assert time.process_time() - before < 3.0  # it takes 0.6 at most where nothing else runs
