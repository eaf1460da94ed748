"""Samples of secrets of every form that is known, made up anew at each run: no scanner finds one in this file.

Grouped as scanners list them; none was ever good anywhere.
"""

from __future__ import annotations

import base64
import random
import string

_RANDOM = random.Random(20260101)
_ALNUM = string.ascii_letters + string.digits
_LOWER = string.ascii_lowercase + string.digits
_UPPER = string.ascii_uppercase + string.digits
_HEX = "0123456789abcdef"


def some(length: int, of: str = _ALNUM) -> str:
    """Characters at random, a digit and a letter among them."""
    return "".join(_RANDOM.choice(of) for _ in range(length - 2)) + "7" + ("e" if "e" in of else of[0])


def _uuid() -> str:
    return "-".join(some(length, _HEX) for length in (8, 4, 4, 4, 12))


def _base64url(length: int) -> str:
    return some(length, _ALNUM + "_-")


def _pem(kind: str) -> str:
    dashes = "-" * 5
    body = "\n".join(some(64, _ALNUM + "+/") for _ in range(6))
    return f"{dashes}BEGIN {kind}{dashes}\n{body}\n{dashes}END {kind}{dashes}"


# name -> a secret that is one wherever it stands. Every prefix is cut in two, so that it is not in this file.
TOKENS: dict[str, str] = {
    "aws-key": "AK" + "IA" + some(16, _UPPER),
    "aws-session-key": "AS" + "IA" + some(16, _UPPER),
    "aws-bedrock": "AB" + "SK" + some(110),
    "azure-client-secret": some(3) + "8Q" + "~" + some(34),
    "azure-storage": "Account" + "Key=" + some(86, _ALNUM + "+/") + "==",
    "azure-sas": "https://x.blob.core.windows.net/c?sv=2022&si" + "g=" + some(40, _ALNUM) + "%3D",
    "google-api": "AI" + "za" + _base64url(35),
    "google-oauth-secret": "GOC" + "SPX-" + _base64url(28),
    "google-oauth-token": "ya" + "29." + _base64url(60),
    "google-refresh": "1/" + "/0" + _base64url(60),
    "alibaba": "LT" + "AI" + some(20),
    "digitalocean": "do" + "p_v1_" + some(64, _HEX),
    "digitalocean-oauth": "do" + "o_v1_" + some(64, _HEX),
    "digitalocean-refresh": "do" + "r_v1_" + some(64, _HEX),
    "heroku": "HR" + "KU-AA" + _base64url(58),
    "fly": "fo" + "1_" + _base64url(43),
    "fly-macaroon": "fm" + "2_" + some(120, _ALNUM + "+/"),
    "netlify": "nf" + "p_" + some(36),
    "render": "rn" + "d_" + some(32),
    "cloudflare-ca": "v1" + ".0-" + some(24, _HEX) + "-" + some(146, _HEX),
    "scalingo": "tk" + "-us-" + _base64url(48),
    "openshift": "sha" + "256~" + _base64url(43),
    "github-classic": "gh" + "p_" + some(36),
    "github-oauth": "gh" + "o_" + some(36),
    "github-user": "gh" + "u_" + some(36),
    "github-app": "gh" + "s_" + some(36),
    "github-refresh": "gh" + "r_" + some(36),
    "github-fine": "github" + "_pat_" + some(82, _ALNUM + "_"),
    **{
        f"gitlab-{mark}": "gl" + mark + "-" + _base64url(length)
        for mark, length in (("pat", 20), ("dt", 20), ("rt", 20), ("ptt", 40), ("ft", 20), ("imt", 25), ("agent", 50))
    },
    "gitlab-routable": "gl" + "rt-t1_" + _base64url(27) + "." + some(9, _LOWER),
    "gitlab-job": "gl" + "cbt-64_" + _base64url(20),
    "gitlab-oauth": "gl" + "oas-" + _base64url(64),
    "gitlab-scim": "gl" + "soat-" + _base64url(20),
    "gitlab-flags": "gl" + "ffct-" + _base64url(20),
    "gitlab-registration": "GR13" + "48941" + _base64url(20),
    "gitlab-cookie": "_gitlab" + "_session=" + some(32, _LOWER),
    "bitbucket-app": "AT" + "BB" + some(32),
    "atlassian": "AT" + "ATT3x" + _base64url(180) + "=" + some(8, _HEX),
    "docker": "dckr" + "_pat_" + _base64url(27),
    "npm": "np" + "m_" + some(36),
    "pypi": "pypi" + "-AgEIcHlwaS5vcmc" + _base64url(70),
    "rubygems": "ruby" + "gems_" + some(48, _HEX),
    "clojars": "CLO" + "JARS_" + some(60, _LOWER),
    "artifactory": "AK" + "Cp" + some(69),
    "artifactory-reference": "cm" + "Vmd" + some(59),
    "vault": "hv" + "s." + _base64url(95),
    "vault-batch": "hv" + "b." + _base64url(140),
    "terraform-cloud": some(14) + ".atlas" + "v1." + _base64url(64),
    "pulumi": "pu" + "l-" + some(40, _HEX),
    "doppler": "dp" + ".pt." + some(43),
    "1password-service": "ops" + "_eyJ" + some(260),
    "1password-key": "A" + "3-" + "-".join(some(length, _UPPER) for length in (6, 11, 5, 5, 5)),
    "infracost": "ic" + "o-" + some(32),
    "prefect": "pn" + "u_" + some(36),
    "harness": "pa" + "t." + _base64url(22) + "." + some(24) + "." + some(20),
    "octopus": "AP" + "I-" + some(26, _UPPER),
    "sonar": "sq" + "p_" + some(40, _HEX),
    "sourcegraph": "sg" + "p_" + some(16, _HEX) + "_" + some(40, _HEX),
    "settlemint": "sm" + "_pat_" + some(16),
    "tailscale": "ts" + "key-auth-" + some(11) + "-" + some(30),
    "databricks": "da" + "pi" + some(32, _HEX),
    "planetscale": "pscale" + "_tkn_" + _base64url(43),
    "planetscale-password": "pscale" + "_pw_" + _base64url(43),
    "supabase": "sb" + "p_" + some(40, _HEX),
    "clickhouse": "4b" + "1d" + some(38),
    "grafana-service": "gl" + "sa_" + some(32) + "_" + some(8, _HEX),
    "grafana-cloud": "gl" + "c_" + some(60, _ALNUM + "+/"),
    "grafana-key": "eyJr" + "Ijoi" + some(90),
    "sentry-org": "sn" + "trys_eyJpYXQiO" + some(80) + "_" + some(43),
    "sentry-user": "sn" + "tryu_" + some(64, _HEX),
    "newrelic": "NR" + "AK-" + some(27, _UPPER),
    "newrelic-browser": "NR" + "JS-" + some(19, _HEX),
    "newrelic-insert": "NR" + "II-" + some(32),
    "dynatrace": "dt" + "0c01." + some(24, _UPPER) + "." + some(64, _UPPER),
    "slack-bot": "xo" + "xb-" + "123456789012-1234567890123-" + some(24),
    "slack-user": "xo" + "xp-" + "123456789012-123456789012-123456789012-" + some(32, _HEX),
    "slack-app": "xa" + "pp-1-" + some(11, _UPPER) + "-1234567890123-" + some(64, _HEX),
    "slack-config": "xo" + "xe.xoxp-1-" + some(163, _UPPER),
    "slack-webhook": "https://hooks.sl" + "ack.com/services/T" + some(9, _UPPER) + "/B" + some(9, _UPPER) + "/" + some(24),
    "discord-bot": "MT" + "AyNzQ4NTY1OTgxMjM0NTY3" + "." + _base64url(6) + "." + _base64url(38),
    "discord-webhook": "https://discord.com/api/web" + "hooks/123456789012345678/" + _base64url(68),
    "telegram": "123456789:" + "AA" + _base64url(33),
    "twilio": "S" + "K" + some(32, _HEX),
    "sendgrid": "S" + "G." + _base64url(22) + "." + _base64url(43),
    "mailgun": "ke" + "y-" + some(32, _HEX),
    "mailchimp": some(32, _HEX) + "-u" + "s12",
    "brevo": "xkey" + "sib-" + some(64, _HEX) + "-" + some(16),
    "teams-webhook": "https://acme.web" + f"hook.office.com/webhookb2/{_uuid()}@{_uuid()}/IncomingWebhook/{some(32, _HEX)}/{_uuid()}",
    "stripe-live": "sk" + "_live_" + some(24),
    "stripe-restricted": "rk" + "_test_" + some(24),
    "webhook-signing": "wh" + "sec_" + some(32),
    "shopify": "shp" + "at_" + some(32, _HEX),
    "shopify-secret": "shp" + "ss_" + some(32, _HEX),
    "square-secret": "sq0" + "csp-" + _base64url(43),
    "square-token": "EAA" + "A" + _base64url(60),
    "braintree": "access_tok" + "en$production$" + some(16, _LOWER) + "$" + some(32, _HEX),
    "plaid": "access-sand" + "box-" + _uuid(),
    "flutterwave": "FLW" + "SECK_TEST-" + some(32, _HEX[:16]) + "-X",
    "duffel": "duffel" + "_test_" + _base64url(43),
    "easypost": "EZ" + "AK" + some(54),
    "shippo": "shippo" + "_live_" + some(40, _HEX),
    "openai-project": "sk" + "-proj-" + _base64url(74) + "T3Blbk" + "FJ" + _base64url(74),
    "openai": "sk" + "-" + some(48),
    "anthropic": "sk" + "-ant-api03-" + _base64url(93) + "AA",
    "huggingface": "h" + "f_" + some(34),
    "groq": "gs" + "k_" + some(52),
    "xai": "xa" + "i-" + some(80),
    "perplexity": "pp" + "lx-" + some(48),
    "replicate": "r" + "8_" + some(37),
    "nvidia": "nv" + "api-" + _base64url(64),
    "langsmith": "ls" + "v2_pt_" + some(32, _HEX) + "_" + some(10, _HEX),
    "linear": "lin" + "_api_" + some(40),
    "notion": "nt" + "n_" + "12345678901" + some(35),
    "postman": "PM" + "AK-" + some(24, _HEX) + "-" + some(34, _HEX),
    "figma": "fi" + "gd_" + _base64url(40),
    "hubspot": "pat" + "-na1-" + _uuid(),
    "mapbox": "sk" + ".eyJ" + some(70) + "." + _base64url(22),
    "facebook": "EA" + "ACE" + some(150),
    "dropbox": "s" + "l." + _base64url(135),
    "adobe": "p8" + "e-" + some(32),
    "typeform": "tf" + "p_" + _base64url(59),
    "readme": "rd" + "me_" + some(70, _LOWER),
    "frameio": "fi" + "o-u-" + _base64url(64),
    "maxmind": some(6) + "_" + some(29) + "_m" + "mk",
    "yandex": "AQ" + "VN" + _base64url(36),
    "twitter-bearer": "A" * 22 + some(90),
    "age": "AGE-SECRET" + "-KEY-1" + some(58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
    "jwt": "ey" + "JhbGciOiJIUzI1NiJ9.ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0." + _base64url(43),
    "pem-rsa": _pem("RSA " + "PRIVATE KEY"),
    "pem-openssh": _pem("OPENSSH " + "PRIVATE KEY"),
    "pem-encrypted": _pem("ENCRYPTED " + "PRIVATE KEY"),
    "pgp": _pem("PGP " + "PRIVATE KEY BLOCK"),
    "putty": "Private" + "-Lines: 2\n" + some(64) + "\n" + some(40) + "\nPrivate" + "-MAC: " + some(40, _HEX),
}  # fmt: skip

_PASSWORD = "Tr0ub" + "4dor-" + some(6)
_BASIC = base64.b64encode(b"ada:" + _PASSWORD.encode()).decode()

# name -> (text, the secret in it): a secret only by where it stands.
PLACES: dict[str, tuple[str, str]] = {
    "npm-auth-token": (f"//registry.npmjs.org/:_authToken={_uuid()}\n", ""),
    "npm-auth": (f"_auth={_BASIC}\n", _BASIC),
    "netrc": (f"machine example.org login ada password {_PASSWORD}\n", _PASSWORD),
    "netrc-lines": (f"machine example.org\n  login ada\n  password {_PASSWORD}\n", _PASSWORD),
    "docker": ('{"auths": {"ghcr.io": {"auth": "' + _BASIC + '"}}}', _BASIC),
    "basic": (f"Authorization: Basic {_BASIC}\n", _BASIC),
    "bearer": (f"curl -H 'Authorization: Bearer {(token := some(40))}' https://example.org", token),
    "header": (f'headers = {{"X-Api-Key": "{(key := some(32))}"}}', key),
    "curl-user": (f"curl -u ada:{_PASSWORD} https://example.org", _PASSWORD),
    "ado": (f"Server=db;Database=shop;User Id=sa;Password={_PASSWORD};Encrypt=true", _PASSWORD),
    "ado-words": ("Server=db;User Id=sa;Password=correct" + "horsebattery;Encrypt=true", "correct" + "horsebattery"),
    "libpq": (f"host=db user=shop password={_PASSWORD} dbname=shop", _PASSWORD),
    "url": (f"postgres://shop:{_PASSWORD}@db/shop", _PASSWORD),
    "url-letters": ("amqp://shop:correct" + "horse@mq/", "correct" + "horse"),
    "url-dollar": ("redis://:pa$$" + "w0rd$x@cache:6379/0", "pa$$" + "w0rd$x"),
    "url-at": ("https://ada:p@ss" + "w0rd9x@example.org/x", "w0rd9x"),
    "url-token": (f"https://{(token := some(40))}@example.org/shop.git", token),
    "aws-secret": (f"aws_secret_access_key = {(secret := some(40, _ALNUM + '/+'))}\n", secret),
    "aws-secret-json": (f'{{"SecretAccessKey": "{(secret := some(40, _ALNUM + "/+"))}"}}', secret),
    "env": (f"DB_PASSWORD={_PASSWORD}\n", _PASSWORD),
    "yaml": (f"db:\n  password: {_PASSWORD}\n", _PASSWORD),
    "json": (f'{{"password": "{_PASSWORD}"}}', _PASSWORD),
    "python": (f'API_KEY = "{(key := some(32))}"\n', key),
    "camel": (f"const apiKey = '{(key := some(32))}';", key),
    "go": (f'clientSecret := "{(key := some(32))}"', key),
    "hcl": (f'  secret_key = "{(key := some(40))}"\n', key),
    "toml": (f'token = "{(key := some(40))}"\n', key),
    "vendor": (f"adafruit_io = '{(key := some(32, _LOWER))}'", key),
    "nuget": (f'<add key="ClearTextPassword" value="{_PASSWORD}" />', _PASSWORD),
}
_KEY = some(32)
# The same values as other languages and formats write them.
for _name, _written, _value in (
    ("escaped", 'password = \\"%s\\"', _PASSWORD),
    ("escaped key", '{\\"api_key\\": \\"%s\\"}', _KEY),
    ("escaped by number", "api_key\\u0022: \\u0022%s\\u0022", _KEY),
    ("in a line in JSON", '"a\\nDB_PASSWORD=%s\\nX=1"', _PASSWORD),
    ("of markup", "api_key=&quot;%s&quot;", _KEY),
    ("of a query", "?access_token%%3D%s", _KEY),
    ("of an element", "<password>%s</password>", _PASSWORD),
    ("of an element key", "<apiKey>%s</apiKey>", _KEY),
    ("of an option", "run --db-password %s", _PASSWORD),
    ("of an option token", "run --token %s", _KEY),
    ("of a variable", "- name: DB_PASSWORD\n  value: %s", _PASSWORD),
    ("of a variable in JSON", '{"name": "API_TOKEN", "value": "%s"}', _KEY),
    ("of bytes", "SECRET_KEY = b'%s'", _KEY),
    ("in brackets", 'SECRET_KEY = ("%s")', _KEY),
    ("of a type", 'api_key: str = "%s"', _KEY),
    ("of a reference", 'const API_KEY: &str = "%s";', _KEY),
    ("verbatim", 'Password = @"%s"', _PASSWORD),
    ("in three quotes", "password='''%s'''", _PASSWORD),
    ("after many spaces", "password      =      %s", _PASSWORD),
    ("after tabs", "password\t=\t\t\t\t\t%s", _PASSWORD),
    ("before a semicolon", "Password=%s;", _PASSWORD),
    ("of a URL in JSON", '"postgres:\\/\\/ada:%s@db\\/shop"', _PASSWORD),
    ("of a URL in a URL", "next=postgres%%3A%%2F%%2Fada:%s@db", _PASSWORD),
):
    PLACES[f"value {_name}"] = (_written % _value, _value)
PLACES["npm-auth-token"] = (PLACES["npm-auth-token"][0], PLACES["npm-auth-token"][0].strip().partition("=")[2])
