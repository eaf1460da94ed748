"""The forms of secrets: for each kind the marks that a text with such a secret has, and its expression.

Names and forms are facts that the issuers publish and scanners such as gitleaks collect; they are written here in our
own words, in RE2's syntax, over bytes. Add a form by adding a line, and a sample to `tests/secret_samples.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .values import is_basic, is_of_header, is_password, is_random, is_secret_of_user, is_token_of_user

# What stands before a token that has no prefix of its own: nothing, a mark, or what writes a mark or a colour in letters
# and digits (`\n` in JSON, `%3D` in a URL, `ESC[32m` in a log).
_COLOUR = r"(?:\x1b|\\x1[bB]|\\033|\\e|\\u001[bB])\[[0-9;]{0,12}m"
_APART = rf"(?:^|[^A-Za-z0-9]|\\[nrtbfv0]|\\x[0-9A-Fa-f]{{2}}|\\u[0-9A-Fa-f]{{4}}|%[0-9A-Fa-f]{{2}}|{_COLOUR})"
_QUOTE = r"(?:\\{0,3}[\"'`]|\\{1,3}u002[27]|&(?:quot|apos|#34|#39|#x27);|%2[27])"  # as code and data write it
_TO = rf"(?:{_QUOTE}|\]){{0,2}}\s{{0,8}}(?:=>|:=|==?|:{{1,2}}|,|%3[AaDd])\s{{0,8}}"  # between a name and its value
_BEGIN = rf"(?:[bfru@(]{{0,2}}{_QUOTE})"  # of a text, in many languages
_TYPED = r"\s?:\s?[&A-Za-z][A-Za-z\[\]<>' |]{0,23}\s?=\s{0,4}"  # between a name with a type and its value
_W = r"[A-Za-z0-9_\-]"
_OF_A_TOKEN = r"[A-Za-z0-9_\-.+/=~%:@]{8}"  # the least that follows the mark of a token


class Rule(NamedTuple):
    """One form of secrets.

    marks: literals of which a text with such a secret has one. expression: its first group, if any, is the secret.
    hint: a shorter expression that is found in every text that the other one is found in. is_one: asked of what was
    found, where the form alone says too little. before, after: how far from a mark the expression may reach, in bytes.
    next_byte: one of those follows the mark; empty: any.
    """

    kind: str
    marks: tuple[str, ...]
    expression: str
    hint: str
    is_one: Callable[[str], bool] | None = None
    before: int = 20
    after: int = 2048
    next_byte: bytes = b""


def _token(kind: str, marks: str, rest: str) -> Rule:
    """A token that begins with one of the marks (separated by spaces) and goes on as `rest` says.

    `rest` begins with at least eight letters, digits or signs of a token: that is the hint.
    """
    words = tuple(marks.split())
    start = rf"(?:{'|'.join(word.replace('.', '[.]') for word in words)})"
    return Rule(kind, words, rf"{_APART}({start}{rest})", start + _OF_A_TOKEN)


def _placed(
    kind: str,
    marks: tuple[str, ...],
    expression: str,
    is_one: Callable[[str], bool] | None = None,
    *,
    lead: str = "",
    flags: str = "(?i)",
    hint: str = "",
    before: int = 20,
    after: int = 2048,
) -> Rule:
    """A secret that is one because of where it stands.

    lead: what stands before `expression`; the hint goes without, since every text has places where it could begin.
    hint: one that several forms have in common, if there is one.
    """
    return Rule(kind, marks, flags + lead + expression, hint or flags + _loose(expression), is_one, before, after)


def _loose(expression: str) -> str:
    """The expression with fewer counts in it: an automaton needs a state for each number it may have counted to."""
    for counted, loose in (("{0,", "*"), ("{1,", "+")):
        while (at := expression.find(counted)) >= 0:
            expression = expression[:at] + loose + expression[expression.index("}", at) + 1 :]
    return expression


def _cased(words: Iterable[str]) -> tuple[str, ...]:
    """Each word as it is written, Capitalised and in capitals."""
    return tuple({form: None for word in words for form in (word, word[0].upper() + word[1:], word.upper())})


def _named(words: str, ends: Iterable[str]) -> tuple[str, ...]:
    """Each of the words (separated by spaces) with each of what may follow a name that is given a value."""
    return tuple(word + end for word in _cased(words.split()) for end in ends)


def _after_mark(words: str) -> tuple[str, ...]:
    """Each of the words where a value begins: alone they stand in too many names."""
    return tuple(mark + word for word in words.split() for mark in ('"', "'", "=", ": ", "= ", "/"))


_GIVEN = ("=", " =", ":", " :", "\t", "  ", '"', "'", "]", "_", ",", "\\", "&", "%", ">")
_DIGITS = "0123456789"
_VENDORS = (
    "adafruit adobe airtable algolia alibaba asana atlassian beamer bitbucket bittrex cisco meraki cloudflare codecov cohere"
    " coinbase confluent contentful datadog discord droneci dropbox etsy facebook fastly finicity finnhub flickr freshbooks"
    " gitter gocardless heroku hubspot intercom jfrog artifactory kraken kucoin launchdarkly linear linkedin looker mailchimp"
    " mailgun mapbox mattermost messagebird netlify newrelic new_relic new-relic nytimes okta plaid privateai private_ai"
    " rapidapi sendbird sentry snyk sonar sourcegraph squarespace sumo telegram travis trello twitch twitter yandex zendesk"
    " jira confluence etherscan twilio mistral deepseek openai gemini kucoin nytimes contribsys linked-in linked_in message-bird message_bird newyorktimes bintray intra42"
)
_KEY_NAMES = " ".join(
    owner + mark + "key"
    for owner in ("api", "access", "auth", "private", "account", "signing", "encryption", "master", "service", "secret", "license", "deploy", "app", "webhook")
    for mark in ("", "_", "-")
)  # fmt: skip
_CAMEL_KEYS = ("apiKey", "accessKey", "authKey", "privateKey", "accountKey", "signingKey", "encryptionKey", "secretKey", "masterKey", "serviceKey")  # fmt: skip

_TOKENS = (
    # Clouds and hosts of code
    Rule("aws-key", ("AKIA", "ASIA", "ABIA", "ACCA", "A3T"), _APART + r"((?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16})", "(?:AKIA|ASIA|ABIA|ACCA|A3T)[A-Z0-9]{16}"),
    _token("aws-key", "ABSK", r"[A-Za-z0-9+/]{60,}={0,2}"),
    _token("aws-key", "bedrock-api-key-", r"[A-Za-z0-9+/=]{20,}"),
    _token("github-token", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"[A-Za-z0-9_]{20,}"),
    _token("gitlab-token", "glpat- gldt- glrt- glrtr- glptt- glcbt- glft- glimt- glagent- gloas- glsoat- glffct-", r"[A-Za-z0-9_\-.=]{18,}"),
    _token("gitlab-token", "GR1348941", rf"{_W}{{20,}}"),
    Rule("gitlab-token", ("_gitlab_session=",), r"_gitlab_session=([0-9a-z]{32})", "_gitlab_session=[0-9a-z]{8}"),
    _token("bitbucket-token", "ATBB ATCTT3 BBDC-", r"[A-Za-z0-9_=\-+/]{24,}"),
    _token("atlassian-token", "ATATT3 ATSTT3", r"[A-Za-z0-9_\-=]{40,}"),
    _token("google-key", "AIza", rf"{_W}{{35}}"),
    _token("google-oauth", "GOCSPX- ya29.", r"[A-Za-z0-9_\-.]{20,}"),
    Rule("google-oauth", ("1//0",), _APART + r"(1//0[A-Za-z0-9_\-]{40,})", r"1//0[A-Za-z0-9_\-]{20}"),
    Rule("azure-secret", ("Q~",), r"([A-Za-z0-9_~.\-]{3}[0-9]Q~[A-Za-z0-9_~.\-]{31,})", r"Q~[A-Za-z0-9_~.\-]{20}", before=6),
    Rule("azure-key", _cased(("accountkey", "accountKey", "sharedaccesskey", "sharedAccessKey", "primarykey", "primaryKey")), r"(?i)(?:accountkey|sharedaccesskey|primarykey)\s{0,2}=\s{0,2}([A-Za-z0-9+/]{40,}={0,2})", r"(?i)(?:accountkey|sharedaccesskey|primarykey)\s*=\s*[A-Za-z0-9+/]{8}"),
    Rule("azure-signature", ("sig=",), r"(?:[?&;\"'\s]|^)sig=([A-Za-z0-9+/%]{20,}={0,2})", "sig=[A-Za-z0-9+/%]{20}"),
    Rule("azure-devops-token", ("AZDO",), r"([A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4})", "AZDO[A-Za-z0-9]{4}", before=80),
    _token("alibaba-key", "LTAI", r"[A-Za-z0-9]{12,}"),
    Rule("tencent-key", ("AKID",), _APART + r"(AKID[A-Za-z0-9]{32})", "AKID[A-Za-z0-9]{8}"),
    _token("digitalocean-token", "dop_v1_ doo_v1_ dor_v1_", r"[a-f0-9]{64}"),
    _token("heroku-key", "HRKU-", rf"{_W}{{30,}}"),
    _token("fly-token", "fo1_ fm1r_ fm1a_ fm2_", r"[A-Za-z0-9_\-+/=]{30,}"),
    _token("netlify-token", "nfp_ nfc_ nfo_ nfu_", r"[A-Za-z0-9_]{30,}"),
    _token("render-key", "rnd_", r"[A-Za-z0-9]{24,}"),
    _token("vercel-token", "vcp_ vci_ vca_ vcr_ vck_ vercel_blob_rw_", r"[A-Za-z0-9_]{20,}"),
    _token("cloudflare-key", "v1.0-", r"[a-f0-9]{24}-[a-f0-9]{100,}"),
    _token("cloudflare-key", "cfut_ cfat_ cfk_", r"[A-Za-z0-9_\-]{30,}"),
    _token("scalingo-token", "tk-us-", rf"{_W}{{40,}}"),
    _token("railway-token", "railway_", r"[A-Za-z0-9_\-]{30,}"),
    _token("openshift-token", "sha256~", rf"{_W}{{43}}"),
    # Builds, packages, secrets, infrastructure
    _token("docker-token", "dckr_pat_ dckr_oat_", rf"{_W}{{20,}}"),
    _token("npm-token", "npm_", r"[A-Za-z0-9]{36}"),
    _token("pypi-token", "pypi-AgE", rf"{_W}{{40,}}"),
    _token("rubygems-key", "rubygems_", r"[a-f0-9]{40,}"),
    _token("clojars-token", "CLOJARS_", r"[A-Za-z0-9]{50,}"),
    _token("crates-token", "cio", r"[A-Za-z0-9]{32}")._replace(marks=_after_mark("cio"), hint="cio[A-Za-z0-9]{12}"),
    _token("nuget-key", "oy2", r"[a-z0-9]{43}"),
    _token("artifactory-token", "AKCp cmVmd", r"[A-Za-z0-9]{55,}"),
    _token("vault-token", "hvs. hvb. hvr.", rf"{_W}{{24,}}"),
    Rule("vault-token", ('"s.', "'s.", "=s.", ":s.", "= s.", ": s."), r"[\"'=:] ?(s\.[A-Za-z0-9]{24})(?:[^A-Za-z0-9(.]|$)", r"[\"'=: ]s\.[A-Za-z0-9]{12}", is_random),
    Rule("terraform-token", (".atlasv1.",), r"([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_\-=]{60,})", r"\.atlasv1\.[A-Za-z0-9_\-=]{8}", before=15),
    _token("pulumi-token", "pul-", r"[a-f0-9]{40}"),
    _token("doppler-token", "dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit.", r"[A-Za-z0-9_.\-]{30,}"),
    _token("1password-token", "ops_eyJ", r"[A-Za-z0-9+/_\-]{40,}={0,3}"),
    Rule("1password-key", ("A3-",), _APART + r"(A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5})", "A3-[A-Z0-9]{6}-"),
    _token("infracost-key", "ico-", r"[A-Za-z0-9]{32}"),
    _token("prefect-key", "pnu_ pnb_", r"[A-Za-z0-9]{36}"),
    _token("harness-key", "pat. sat.", r"[A-Za-z0-9_\-]{20,24}\.[A-Za-z0-9]{20,24}\.[A-Za-z0-9]{20}"),
    _token("octopus-key", "API-", r"[A-Z0-9]{26}"),
    _token("buildkite-token", "bkua_ bkct_", r"[a-z0-9]{36,}"),
    _token("circleci-token", "CCIPAT_", r"[A-Za-z0-9_]{40,}"),
    _token("sonar-token", "squ_ sqp_ sqa_", r"[a-f0-9]{40}"),
    _token("sourcegraph-token", "sgp_", r"(?:[A-Fa-f0-9]{16}_|local_)?[A-Fa-f0-9]{40}"),
    _token("settlemint-token", "sm_aat_ sm_pat_ sm_sat_", r"[A-Za-z0-9]{16}"),
    _token("tailscale-key", "tskey-", r"[A-Za-z0-9_\-]{20,}"),
    _token("ngrok-token", "ak_2 cr_2", r"[A-Za-z0-9]{25,}"),
    _token("databricks-token", "dapi", r"[a-f0-9]{32}(?:-[0-9])?"),
    _token("planetscale-token", "pscale_tkn_ pscale_oauth_ pscale_pw_", r"[A-Za-z0-9_=.\-]{20,}"),
    _token("supabase-key", "sbp_ sb_secret_", r"[A-Za-z0-9_\-]{20,}"),
    _token("neon-key", "napi_", r"[a-z0-9]{40,}"),
    _token("turso-token", "turso_", r"[A-Za-z0-9_\-]{30,}"),
    _token("clickhouse-key", "4b1d", r"[A-Za-z0-9]{38}"),
    _token("airtable-token", "pat", r"[A-Za-z0-9]{14}\.[a-f0-9]{64}")._replace(marks=_cased(("airtable",)), hint=r"pat[A-Za-z0-9]{14}\.[a-f0-9]"),
    # Watching
    _token("grafana-token", "glsa_ glc_", r"[A-Za-z0-9+/=_]{30,}"),
    _token("grafana-token", "eyJrIjoi", r"[A-Za-z0-9+/]{50,}={0,3}"),
    _token("sentry-token", "sntrys_ sntryu_ sntryi_", r"[A-Za-z0-9+/=_]{30,}"),
    _token("newrelic-key", "NRAK- NRJS- NRII- NRAA- NRRA-", r"[A-Za-z0-9\-]{18,}"),
    _token("newrelic-key", "NRAL", r"[A-Za-z0-9]{18,}"),
    _token("dynatrace-token", "dt0c01. dt0s16. dt0s02.", r"[A-Za-z0-9]{20,24}\.[A-Za-z0-9]{60,}"),
    _token("honeycomb-key", "hcaik_ hcbik_ hcxik_ hcamk_", r"[a-z0-9]{40,}"),
    _token("posthog-key", "phx_", r"[A-Za-z0-9]{30,}"),
    _token("logfire-token", "pylf_v1_", r"[a-z]{2}_[A-Za-z0-9]{30,}"),
    _token("axiom-token", "xaat- xapt-", r"[a-f0-9\-]{36}"),
    # Messages
    _token("slack-token", "xoxa- xoxb- xoxe- xoxe. xoxo- xoxp- xoxr- xoxs- xoxc- xoxd- xapp- xwfp-", r"[A-Za-z0-9.%\-]{10,}"),
    Rule("slack-webhook", ("hooks.slack.com",), r"(hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_\-]{20,})", r"hooks\.slack\.com/[a-z]"),
    # It begins with the digits of a user's number in base64.
    Rule("discord-token", tuple(a + b for a in ("MT", "Mj", "Mz", "ND", "NT", "Nj", "Nz", "OD", "OT") for b in "AEIMQUYcgk"),
         _APART + r"([MNO][A-Za-z0-9_\-]{22,27}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,38})", r"(?:M[Tjz]|N[DTj]|O[DT])[A-Za-z][w-z0-5][A-Za-z0-9_\-]{19}", is_random, after=90, next_byte=b"wxyz012345"),
    Rule("discord-webhook", ("api/webhooks/",), r"api/webhooks/[0-9]{10,}/([A-Za-z0-9_\-]{40,})", "api/webhooks/[0-9]"),
    _token("discord-token", "mfa.", rf"{_W}{{60,}}"),
    Rule("telegram-token", (":AA",), r"(?:^|[^0-9])([0-9]{6,12}:AA[A-Za-z0-9_\-]{30,})", r":AA[A-Za-z0-9_\-]{12}", before=14),
    Rule("telegram-token", _cased(("telegr",)), r"(?:^|[^0-9])([0-9]{5,16}:A[A-Za-z0-9_\-]{34})", r":A[A-Za-z0-9_\-]{20}", after=200),
    Rule("twilio-key", tuple("SK" + digit for digit in _DIGITS + "abcdefABCDEF"), _APART + r"(SK[0-9A-Fa-f]{32})", "SK[0-9A-Fa-f]{12}", after=40, next_byte=b"0123456789abcdefABCDEF"),
    _token("sendgrid-key", "SG.", r"[A-Za-z0-9_\-=]{16,}\.[A-Za-z0-9_\-=.]{16,}"),
    _token("mailgun-key", "key-", r"[a-f0-9]{32}"),
    Rule("mailgun-key", _cased(("mailgun",)), _APART + r"([a-f0-9]{32}-[a-f0-9]{8}-[a-f0-9]{8})", "[a-f0-9]-[a-f0-9]{8}-[a-f0-9]{8}"),
    Rule("mailchimp-key", tuple("-us" + digit for digit in _DIGITS), _APART + r"([a-f0-9]{32}-us[0-9]{1,2})", "[a-f0-9]-us[0-9]", before=52),
    _token("brevo-key", "xkeysib- xsmtpsib-", r"[a-f0-9]{40,}-[A-Za-z0-9]{16}"),
    _token("resend-key", "re_", r"[A-Za-z0-9]{8}_[A-Za-z0-9]{24}")._replace(marks=_after_mark("re_"), hint="re_[A-Za-z0-9]{8}_[A-Za-z0-9]{4}"),
    Rule("teams-webhook", ("webhook.office.com",), r"(webhook\.office\.com/webhookb2/[A-Za-z0-9@\-]{36,}/IncomingWebhook/[A-Za-z0-9/\-]{32,})", r"webhook\.office\.com/webhookb2/"),
    _token("line-token", "LINE_CHANNEL_", rf"{_W}{{40,}}"),
    # Money and shops
    _token("stripe-key", "sk_live_ sk_test_ sk_prod_ rk_live_ rk_test_ rk_prod_", r"[A-Za-z0-9]{10,}"),
    _token("webhook-secret", "whsec_", r"[A-Za-z0-9+/=]{24,}"),
    _token("shopify-token", "shpat_ shpca_ shppa_ shpss_ shptka_", r"[A-Fa-f0-9]{32}"),
    _token("square-token", "sq0csp- sq0atp- sq0idp- EAAA", rf"{_W}{{22,}}"),
    Rule("braintree-token", ("access_token$",), r"(access_token\$(?:production|sandbox)\$[a-z0-9]{16}\$[a-f0-9]{32})", r"access_token\$[ps]"),
    Rule("plaid-token", ("access-sandbox-", "access-development-", "access-production-"), r"(access-(?:sandbox|development|production)-[0-9a-f\-]{36})", r"access-(?:sandbox|development|production)-[0-9a-f\-]{8}"),
    _token("flutterwave-key", "FLWSECK_TEST- FLWSECK- FLWPUBK_TEST-", r"[A-Za-z0-9]{12,}(?:-X)?"),
    _token("duffel-token", "duffel_test_ duffel_live_", r"[A-Za-z0-9_\-=]{40,}"),
    _token("easypost-key", "EZAK EZTK", r"[A-Za-z0-9]{54}"),
    _token("shippo-token", "shippo_live_ shippo_test_", r"[A-Fa-f0-9]{40}"),
    _token("lob-key", "live_ test_ live_pub_ test_pub_", r"[a-f0-9]{31,35}")._replace(marks=_after_mark("live_ test_"), hint="(?:live|test)_(?:pub_)?[a-f0-9]{12}"),
    _token("gocardless-token", "live_", r"[A-Za-z0-9_\-=]{40}")._replace(marks=_cased(("gocardless",)), hint=r"live_[A-Za-z0-9_\-=]{20}", is_one=is_random),
    # Models
    _token("anthropic-key", "sk-ant-", rf"{_W}{{20,}}"),
    Rule("api-key", ("sk-",), _APART + r"(sk-[A-Za-z0-9_\-]{20,})", r"sk-[A-Za-z0-9_\-]{20}", lambda value: any(map(str.isdigit, value))),
    _token("huggingface-token", "hf_ api_org_", r"[A-Za-z0-9]{30,}"),
    _token("groq-key", "gsk_", r"[A-Za-z0-9]{40,}"),
    _token("xai-key", "xai-", r"[A-Za-z0-9]{60,}"),
    _token("perplexity-key", "pplx-", r"[A-Za-z0-9]{40,}"),
    _token("replicate-token", "r8_", r"[A-Za-z0-9]{37}"),
    _token("nvidia-key", "nvapi-", rf"{_W}{{40,}}"),
    _token("langsmith-key", "lsv2_pt_ lsv2_sk_", r"[A-Za-z0-9_]{32,}"),
    _token("pinecone-key", "pcsk_", r"[A-Za-z0-9_]{40,}"),
    _token("tavily-key", "tvly-", r"[A-Za-z0-9\-]{20,}"),
    _token("firecrawl-key", "fc-", r"[a-f0-9]{32}")._replace(hint="fc-[a-f0-9]{12}"),
    # Work
    _token("intra42-secret", "s-s4t2ud- s-s4t2af-", r"[a-f0-9]{64}"),
    _token("linear-key", "lin_api_ lin_oauth_", r"[A-Za-z0-9]{32,}"),
    _token("notion-token", "ntn_ secret_", r"[A-Za-z0-9]{40,}")._replace(marks=("ntn_", *_after_mark("secret_")), hint="(?:ntn|secret)_[A-Za-z0-9]{20}"),
    _token("postman-key", "PMAK- PMAT-", r"[A-Za-z0-9\-]{24,}"),
    _token("figma-token", "figd_ figu_ figo_", rf"{_W}{{30,}}"),
    _token("hubspot-token", "pat-na1- pat-na2- pat-eu1- pat-ap1-", r"[a-f0-9\-]{36}"),
    _token("mapbox-token", "sk.eyJ tk.eyJ pk.eyJ", r"[A-Za-z0-9_\-]{20,}\.[A-Za-z0-9_\-]{20,}"),
    _token("facebook-token", "EAAC EAAM EAAG EAAB EAAD", r"[A-Za-z0-9]{60,}")._replace(is_one=is_random),
    Rule("facebook-token", _cased(("facebook",)), _APART + r"([0-9]{15,16}(?:\||%7C)[A-Za-z0-9_\-]{27,40})", r"(?:\||%7C)[A-Za-z0-9_\-]{20}"),
    _token("dropbox-token", "sl.", rf"{_W}{{60,}}"),
    _token("adobe-secret", "p8e-", r"[A-Za-z0-9]{32}"),
    _token("asana-token", "1/ 2/", r"[0-9]{15,17}(?:/[0-9]{15,17})?:[a-f0-9]{32}")._replace(marks=_cased(("asana",)), hint="[0-9]{4}:[a-f0-9]{12}"),
    _token("typeform-token", "tfp_", r"[A-Za-z0-9_\-.=]{40,}"),
    _token("readme-key", "rdme_", r"[a-z0-9]{70}"),
    _token("frameio-token", "fio-u-", r"[A-Za-z0-9_\-=]{64}"),
    Rule("maxmind-key", ("_mmk",), _APART + r"([A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk)", "_mmk", before=56),
    _token("authress-key", "sc_ ext_ scauth_ authress_", r"[A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9\-]{10,32}\.[A-Za-z0-9+/_=\-]{30,}")._replace(marks=(".acc_", ".acc-"), hint=r"\.acc[_-][A-Za-z0-9\-]{8}", before=60),
    _token("dnkey", "dnkey-", r"[A-Za-z0-9=_\-]{26}-[A-Za-z0-9=_\-]{52}"),
    _token("yandex-key", "AQVN YCAJE t1.", r"[A-Za-z0-9_\-.=]{35,}")._replace(is_one=is_random),
    Rule("twitter-bearer", ("AAAAAAAAAAAAAAAAAAAAAA",), r"(A{22}[A-Za-z0-9%]{60,})", "A{22}"),
    # Keys and signed tokens
    Rule("age-key", ("AGE-SECRET-KEY-",), r"(AGE-SECRET-KEY-(?:PQ-)?1[A-Za-z0-9]{40,})", "AGE-SECRET-KEY-[1P]"),
    Rule("putty-key", ("Private-Lines:",), r"Private-Lines: [0-9]+\s+([A-Za-z0-9+/=\s]+)Private-", "Private-Lines: [0-9]"),
    _token("jwt", "eyJ", r"[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{8,}")._replace(after=16 * 1024),
    _token("jwt", "ZXlK", r"[A-Za-z0-9+/_\-]{60,}={0,2}"),  # once more in base64
    _token("jwt", "eyJ", r"[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]*\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}")._replace(after=16 * 1024),
)  # fmt: skip

_ANY_KEY = (
    r"passwo?r?d|passwort|passphrase|pwd|secret|token|creds|credentials?|authorization|bearer"
    r"|(?:api|access|auth|private|account|signing|encryption|master|service|secret|license|deploy|webhook|app)[_\-]?key"
)
_LOOSE_QUOTE = _loose(_QUOTE)
# One for all values behind such names, and one for those behind vendors' names: with a hint for each form RE2 needs
# several times as many states, and the first text of a process pays for them.
_AFTER_NAME = rf"(?i)(?:{_ANY_KEY})[a-z0-9_.\-]*(?:{_LOOSE_QUOTE}|\])*\s*(?:[=:,>]|%3[AD])"
_AFTER_VENDOR = (
    rf"(?i)(?:{'|'.join(sorted(set(_VENDORS.split())))})"
    r"[a-z0-9_. \t\-]*[\s\"'`]*(?:=>|>|:+=|\|\||:|=|\?=|,)[\s\"'`=]*[a-z0-9_=.\-]{8}"
)
_IN_TEXT = (
    _placed("aws-secret", _cased(("secret_access_key", "secretaccesskey", "secretAccessKey", "secret_Access_Key", "secret_accesskey", "aws_secret", "awsSecret", "awssecret")),
         rf"(?:secret_?access_?key|aws_?secret[a-z_]{{0,12}}){_TO}[\"']?([A-Za-z0-9/+]{{40}})(?:[^A-Za-z0-9/+]|$)", after=100, hint=_AFTER_NAME),
    _placed("aws-secret", _cased(("session_token", "sessionToken", "sessiontoken")), rf"session_?token{_TO}[\"']?([A-Za-z0-9/+=]{{80,}})", hint=_AFTER_NAME),
    _placed("authorization", _cased(("authorization", "x-api-key", "X-Api-Key", "x-auth-token", "X-Auth-Token", "private-token", "Private-Token")),
         r"(?:authorization|x-api-key|x-auth-token|private-token)[\"'`]?\s{0,2}[:=,]\s{0,2}[\"'`]?(?:(?:basic|bearer|token|bot|apikey|aws4-hmac-sha256)\s{1,2})?([A-Za-z0-9_\-.+/=~:]{8,})(?:[^A-Za-z0-9_\-.+/=~:(]|$)", is_of_header, hint=_AFTER_NAME),
    _placed("authorization", _cased(("basic ",)), r"basic\s{1,2}([A-Za-z0-9+/]{8,}={0,2})", is_basic, lead=r"\b"),
    _placed("authorization", _cased(("bearer ",)), r"bearer\s{1,2}([A-Za-z0-9_\-.+/=~]{16,})(?:[^A-Za-z0-9_\-.+/=~(]|$)", is_random, lead=r"\b"),
    _placed("npm-auth", ("_authToken", "_auth=", "_auth =", "_password=", "_password ="), r"_(?:authToken|auth|password)\s{0,2}=\s{0,2}[\"']?([A-Za-z0-9+/=_\-.~]{6,})", is_secret_of_user, lead=r"(?::|^|[\s;])", flags=""),
    _placed("netrc", ("login ", "login\t", "login\n"), r"login\s{1,8}[^\s]{1,100}\s{1,8}password\s{1,8}([^\s]{3,})", is_secret_of_user, lead=r"\b", after=300),
    _placed("docker-auth", ('"auth"', '"identitytoken"', '"registrytoken"'), r"\"(?:auth|identitytoken|registrytoken)\"\s{0,4}:\s{0,4}\"([A-Za-z0-9+/=_\-.]{8,})\"", is_secret_of_user, flags=""),
    _placed("connection-string", _named("password pwd", ("=", " =")),
         r"(?:password|pwd)\s?=\s?([^;\n\"'`]+)", is_secret_of_user, before=600, after=300,
         lead=r"(?:server|data source|host|hostname|endpoint|user id|uid|user|username|database|initial catalog|addr|dbname)\s?=[^;\n\"'`]*;(?:[^;\n\"'`]*;)*?\s{0,2}", hint=_AFTER_NAME),
    _placed("connection-string", _named("password", ("=",)),
         r"password=([^\s\"'`;]+)", is_secret_of_user, before=400, after=300, lead=r"(?:host|hostaddr|user|dbname|port)=[^\s\"'`;=]+\s(?:[a-z_]+=[^\s\"'`;=]*\s)*?", hint=_AFTER_NAME),
    _placed("password", (" -u ", "--user ", "--user=", "--proxy-user"), r"(?:-u|--user|--proxy-user)[ =]\s{0,2}[\"']?[^\s\"':]{1,64}:([^\s\"'`]{4,})", is_secret_of_user, after=300, lead=r"\s", flags=""),
    _placed("password", ('"Password"', 'TextPassword"'), r"key=\"(?:cleartext)?password\"\s{1,4}value=\"([^\"\n]{6,})\"", is_secret_of_user, before=16, after=300),
    _placed("password", _named("password passwd passphrase passwort pwd", _GIVEN), rf"(?:passwo?r?d|passphrase|passwort|pwd)[a-z0-9_.\-]{{0,20}}(?:{_TO}|{_TYPED}){_BEGIN}{{1,3}}([^\"'`\s&]{{1}}[^\"'`\s]{{5,}}){_QUOTE}", is_password, after=600, hint=_AFTER_NAME),
    _placed("password", _named("password passwd passphrase passwort pwd", ("=", " =", ":", " :", "_", "\t", "  ")), r"(?:passwo?r?d|passphrase|pwd)[a-z0-9_]{0,20}\s{0,8}[:=]\s{0,8}([^\s\"'`,;#(){}\[\]<>$]{8,})(?:[\s;]|\\?\"|\\[nrt]|$)", is_password, before=48, after=600,
         lead=r"(?:^|[\s;,{_\-\\\"'?&])[a-z0-9_.\-]{0,40}", flags="(?im)", hint=_AFTER_NAME),
    _placed("secret", (*_named("password passwd passphrase pwd secret token creds credential credentials", _GIVEN), *_cased(_KEY_NAMES.split()), *_CAMEL_KEYS),
         rf"(?:{_ANY_KEY})[a-z0-9_.\-]{{0,20}}(?:(?:{_TO}|{_TYPED}){_BEGIN}?|>)([a-z0-9+/_=.~\-]{{14,}})(?:[^a-z0-9+/_=.~\-(]|$)", is_random, after=600, hint=_AFTER_NAME),
    _placed("password", _named("password passwd passphrase pwd", (">",)), r"(?:password|passwd|passphrase|pwd)>([^<\s]{6,200})</", is_password, before=42, lead=r"<[a-z0-9_.:\-]{0,40}", hint=_AFTER_NAME),
    _placed("password", ("password ", "passwd ", "password=", "passwd="), r"(?:password|passwd)[ =][\"']?([^\s\"'`]{6,})", is_password, before=26, lead=r"(?:^|[\s\"'])--[a-z0-9\-]{0,20}", flags=""),
    _placed("secret", ("token ", "secret ", "-key "), r"(?:token|secret|key) [\"']?([A-Za-z0-9+/_=.~\-]{14,})(?:[^A-Za-z0-9+/_=.~\-(]|$)", is_random, before=30, lead=r"(?:^|[\s\"'])--[a-z0-9\-]{0,20}", flags=""),
    # A variable of an environment, as Kubernetes and Compose write it.
    _placed("password", _named("password passwd passphrase pwd", ("\n", '"', "'", ",")),
         r"name[\"']?:\s{0,2}[\"']?[a-z0-9_.\-]{0,40}(?:password|passwd|passphrase|pwd)[\"']?,?\s{0,40}[\"']?value[\"']?:\s{0,2}[\"']?([^\s\"'`]{6,})", is_password, before=60, after=300),
    _placed("secret", _named("secret token key", ("\n", '"', "'", ",")),
         r"name[\"']?:\s{0,2}[\"']?[a-z0-9_.\-]{0,40}(?:secret|token|key)[\"']?,?\s{0,40}[\"']?value[\"']?:\s{0,2}[\"']?([a-z0-9+/_=.~\-]{14,})", is_random, before=60, after=300),
    _placed("secret", _cased(_VENDORS.split()),
         rf"(?:{'|'.join(_VENDORS.split())})[a-z0-9_. \t\-]{{0,20}}[\s\"'`]{{0,3}}(?:=>|>|:{{1,3}}=|\|\||:|=|\?=|,)[\s\"'`=]{{0,5}}([a-f0-9]{{8}}:[a-f0-9]{{8}}|[a-z0-9_=.\-]{{14,}})(?:[^a-z0-9_=.\-(]|$)", is_random, after=600, hint=_AFTER_VENDOR),
)  # fmt: skip

# Of URLs, which are everywhere: see `redaction._in_urls`.
_SCHEME_END = r"(?:://|:\\/\\/|%3A%2F%2F)"
_IN_URL = _SCHEME_END + r"[^/\s'\"<>`]*@"
URL_PASSWORD = Rule("password", ("://",), _SCHEME_END + r"[^/\s:@'\"<>`]*:([^/\s'\"<>`]+)@", _IN_URL, is_secret_of_user)
URL_TOKEN = Rule("password", ("://",), _SCHEME_END + r"([^/\s:@'\"<>`]{10,})@", _IN_URL, is_token_of_user)
_PRIVATE_KEY = r"PRIVATE KEY[A-Z ]*----"

RULES = (*_TOKENS, *_IN_TEXT)


def hint_of_all() -> str:
    """An expression that every text with a secret matches, and few others.

    The marks of tokens stand together and in order, with what follows them once: RE2 makes fewer states then.
    """
    hints = dict.fromkeys((_PRIVATE_KEY, _IN_URL, *(rule.hint for rule in RULES)))
    of_tokens = sorted(hint.removesuffix(_OF_A_TOKEN) for hint in hints if hint.endswith(_OF_A_TOKEN))
    others = sorted(hint for hint in hints if not hint.endswith(_OF_A_TOKEN))
    return "|".join(f"(?:{hint})" for hint in (f"(?:{'|'.join(of_tokens)}){_OF_A_TOKEN}", *others))
