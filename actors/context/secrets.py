"""What must never leave: files that hold secrets by their name, and secrets by their known prefixes in any text.

Known prefixes only: they run at memory speed over every text that is sent (contents, commit messages, earlier
outputs), where an entropy scanner would take minutes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache
from typing import Any

from ahocorasick_rs import BytesAhoCorasick, MatchKind

_SECRET_NAMES = (
    ".env",
    ".env.*",
    "*.env",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ovpn",
    "*.ppk",
    "*.tfstate",
    "*.tfstate.backup",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".my.cnf",
    ".git-credentials",
    ".htpasswd",
    ".dockercfg",
    ".vault-token",
    "kubeconfig",
    "credentials",
    "credentials.json",
    "service-account*.json",
    "service_account*.json",
    "secrets.yml",
    "secrets.yaml",
    "secrets.json",
    "secrets.toml",
)
_HARMLESS_NAMES = ("*.example", "*.sample", "*.template", "*.dist", "*.pub")
_SECRET_PATHS = (".aws/*", ".ssh/*", ".gnupg/*", ".docker/config.json", ".kube/config", ".git/*")


_SECRET_NAME = re.compile("|".join(map(translate, _SECRET_NAMES)))
_HARMLESS_NAME = re.compile("|".join(map(translate, _HARMLESS_NAMES)))
_SECRET_PATH = re.compile("|".join(translate("*/" + pattern) for pattern in _SECRET_PATHS))


@lru_cache(maxsize=65_536)
def is_secret_path(path: str) -> bool:
    """Whether a file is named like one that holds secrets. Its path may be told, its content never."""
    lowered = path.lower()
    name = lowered.rpartition("/")[2]
    if _SECRET_NAME.match(name):
        return not _HARMLESS_NAME.match(name)
    return _SECRET_PATH.match("/" + lowered) is not None


# kind, a literal without which the expression cannot match (found at memory speed), the expression.
_KINDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "private-key",
        ("PRIVATE KEY",),
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|\Z)",
    ),
    ("aws-key", ("AKIA", "ASIA"), r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    (
        "aws-secret",
        (
            *("ecret_access_key", "SECRET_ACCESS_KEY", "ecretAccessKey"),
            *("ecretaccesskey", "SECRETACCESSKEY", "ecret_Access_Key"),
        ),
        r"(?i:secret_?access_?key)[\"']?\s{0,4}[:=]\s{0,4}[\"']?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
    ),
    (
        "github-token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255})",
    ),
    ("gitlab-token", ("glpat-",), r"glpat-[A-Za-z0-9_\-]{20,}"),
    ("slack-token", ("xox", "xapp-"), r"(?:xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,})"),
    ("slack-webhook", ("hooks.slack.com",), r"hooks\.slack\.com/services/[A-Za-z0-9/]{20,}"),
    ("stripe-key", ("k_live_", "k_test_"), r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("api-key", ("sk-",), r"sk-(?=[A-Za-z_\-]*[0-9])[A-Za-z0-9_\-]{20,}"),
    ("google-key", ("AIza",), r"AIza[A-Za-z0-9_\-]{35}"),
    ("google-oauth", ("GOCSPX-", "ya29."), r"(?:GOCSPX-[A-Za-z0-9_\-]{20,}|ya29\.[A-Za-z0-9_\-]{20,})"),
    ("npm-token", ("npm_",), r"npm_[A-Za-z0-9]{36}"),
    ("pypi-token", ("pypi-AgE",), r"pypi-AgE[A-Za-z0-9_\-]{40,}"),
    ("huggingface-token", ("hf_",), r"hf_[A-Za-z0-9]{30,}"),
    ("sendgrid-key", ("SG.",), r"SG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}"),
    ("digitalocean-token", ("_v1_",), r"do[opr]_v1_[a-f0-9]{64}"),
    ("vault-token", ("hvs.", "hvb."), r"hv[sb]\.[A-Za-z0-9_\-]{24,}"),
    ("jwt", ("eyJ",), r"eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{8,}"),
)
_START = r"(?<![A-Za-z0-9])"
_PATTERNS = tuple((kind, literals, re.compile(_START + expression)) for kind, literals, expression in _KINDS)

# Looking for each literal in turn would read every text thirty times; this reads it once, at memory speed.
_SCHEME_END = b"://"
_LITERALS = [literal.encode() for _, literals, _ in _KINDS for literal in literals]
_MAY_HOLD = BytesAhoCorasick([_SCHEME_END, *_LITERALS], matchkind=MatchKind.LeftmostFirst)

# A password in a URL: long, with a digit and a letter, so that `user:password@host` of a manual stays readable.
_URL_PASSWORD = re.compile(
    r"(?P<before>\b[a-z][a-z0-9+.\-]{1,20}://[^/\s:@'\"<>]{0,64}:)(?=[^/\s@]*[0-9])(?=[^/\s@]*[A-Za-z])(?P<password>[^/\s:@'\"<>${}]{8,256})@"
)
# What has to follow `://` for that, on bytes and a little wider: it is asked of every URL.
_MAY_BE_PASSWORD = re.compile(rb"[^/\s:@'\"<>]{0,256}:[^/\s:@'\"<>${}]{8,1024}@")
_REMOTE_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")


def redact(text: str) -> tuple[str, int]:
    """`text` with every known secret replaced by `[REDACTED:kind]`, and how many there were."""
    data = text.encode("utf-8", "surrogatepass")
    found = _MAY_HOLD.find_matches_as_indexes(data)
    if not found:
        return text, 0
    count = 0
    if any(which for which, _, _ in found):
        for kind, literals, pattern in _PATTERNS:
            if any(literal in text for literal in literals):
                text, times = pattern.subn(_replacement(kind), text)
                count += times
    if any(_MAY_BE_PASSWORD.match(data, end) for which, _, end in found if not which):
        text, times = _URL_PASSWORD.subn(r"\g<before>[REDACTED:password]@", text)
        count += times
    return text, count


def _replacement(kind: str) -> Callable[[re.Match[str]], str]:
    """Keeps the number of lines, so that line numbers below a redacted key still hold."""

    def put(match: re.Match[str]) -> str:
        return f"[REDACTED:{kind}]" + "\n" * match.group().count("\n")

    return put


def redact_json(value: Any) -> tuple[Any, int]:
    """A JSON value with every string in it redacted, keys too, and how many secrets there were."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        pairs = [redact_json(item) for item in value]
        return [item for item, _ in pairs], sum(found for _, found in pairs)
    if isinstance(value, dict):
        count = 0
        clean: dict[str, Any] = {}
        for key, item in value.items():
            clean_key, in_key = redact(key)
            clean[clean_key], in_item = redact_json(item)
            count += in_key + in_item
        return clean, count
    return value, 0


def without_credentials(url: str) -> str | None:
    """A remote's URL without user, password and query; `git@host:path` has none and stays.

    None for a path of this machine.
    """
    if url.startswith(("/", ".", "~", "file:")) or "::" in url:
        return None
    if "://" in url:
        url = url.partition("#")[0].partition("?")[0]  # a token may stand in the query; git needs none of it
    return redact(_REMOTE_CREDENTIALS.sub("", url))[0]
