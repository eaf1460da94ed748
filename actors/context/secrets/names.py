"""Recognises files that usually hold secrets by their names: they are listed, their content is never read. Pure.

By name alone, without any expression: a look at a name is a few look-ups. Source code stays readable (`secrets.py`,
`auth.ts`), and so do samples (`.env.example`); secrets in them are redacted like in any text.
"""

from __future__ import annotations

from ....state.remembered import remembered

_DATA = ("yml", "yaml", "json", "toml", "ini", "cfg", "conf", "properties", "xml", "csv", "txt", "env", "enc", "plist")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _names(text: str) -> frozenset[str]:
    return frozenset(_words(text))


# Whole names.
_NAMES = _names("""
    .env .envrc .flaskenv .dev.vars .netrc _netrc netrc .authinfo .npmrc .yarnrc .yarnrc.yml .pypirc pip.conf
    .condarc .pgpass pgpass.conf .my.cnf .mylogin.cnf .odbc.ini .git-credentials .gitcredentials .htpasswd htpasswd
    .htdigest .dockercfg .dockerconfigjson dockerconfigjson .vault-token .vault_pass .vault-pass .vault_password
    vault_pass kubeconfig .kubeconfig admin.conf k3s.yaml .credentials credentials .token token .secret secret
    .secrets secrets .password password passwords passwd shadow .s3cfg .boto .passwd-s3fs rclone.conf .terraformrc
    terraform.rc credentials.tfrc.json .databrickscfg .snowsql .sentryclirc .transifexrc .msmtprc msmtprc
    .fetchmailrc .muttrc .ngrok.yml ngrok.yml rootkey.csv accesskeys.csv application_default_credentials.json
    oauth_creds.json .credentials.json .claude.json auth.json .auth.json token.json cookies.txt
    cookies.json cookies.sqlite cookies login.keychain logins.json key3.db key4.db keyfile.json key.json
    gcloud-service-key.json client_secrets.json identity wp-config.php localsettings.php database.yml database.yaml
    profiles.yml settings-security.xml sitemanager.xml filezilla.xml recentservers.xml winscp.ini sftp-config.json
    sftp.json .ftpconfig .remote-sync.json .histfile .zhistory .lesshst .viminfo fish_history master.key
    secring.gpg secring.pgp private.asc secret.asc .gemrc .pulumi-credentials .pgpassfile .bash_sessions .s3curl
    .tugboat .trc .twurlrc .sqlpass unattend.xml sysprep.xml
""")
# What comes after the last dot.
_SUFFIXES = _names("""
    env envrc pem key p12 pfx p8 pk8 pkcs8 pvk jks keystore bks truststore kdb kdbx psafe3 ovpn ppk tfstate tfvars
    agekey token secret secrets keychain kubeconfig gpg htpasswd netrc dockercfg agilekeychain opvault 1pif keytab
    ccache pcap mobileprovision cscfg rdp tblk kwallet asc-private
""")
# Parts of a path, the last of them the name; `*` is anything in that folder or below.
_PATHS = _words("""
    .aws/* .azure/* .ssh/* .gnupg/* .git/* .kube/* .password-store/* .config/gcloud/* .oci/* .docker/config.json
    .cargo/credentials .cargo/credentials.toml .gem/credentials .m2/settings.xml .gradle/gradle.properties
    .bundle/config .config/gh/hosts.yml .config/hub .config/doctl/config.yaml .mc/config.json
    .snowflake/config.toml .snowsql/config .dbt/profiles.yml .claude/settings.local.json .codex/auth.json
    .subversion/auth/* .purple/accounts.xml .config/rclone/* .config/op/config .config/sops/age/* .minio/*
    .ngrok2/* .netlify/config.json .composer/auth.json .heroku/*
""")
# Stems of data files, alone or with more after a mark: secrets.prod.yaml, client_secret_123.json, vault-dev.yml.
_STEMS = _words("""
    secret secrets credential credentials creds password passwords passwd vault client_secret client-secret
    client_secrets service-account service_account serviceaccount kubeconfig kube_config kube-config vault_pass
    vault-pass vault_password vault-password apikey apikeys api_key api_keys api-key api-keys token
    private_key private-key gcp-key gcp_key oauth_token .vault_pass .vault-pass .vault_password .secrets .secret
    .credentials .token htpasswd
""")
_STEM_ENDS = (
    *("-secret", "_secret", ".secret", "-secrets", "_secrets", ".secrets", "_credentials", "-credentials"),
    *("_accesskeys", "-service-account", "-sa-key", ".kubeconfig", "-kubeconfig", "_vault", "-vault"),
)
_SSH_KEYS = ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_xmss", "ssh_host_")
_SSH_KEY_ENDS = ("_rsa", "_dsa", "_ecdsa", "_ed25519")
_MARKS = ".-_"
_BACKUPS = ("~", ".bak", ".old", ".orig", ".save", ".swp", ".swo", ".backup", ".tmp", ".copy", ".1")
_SAMPLES = _names(
    "example examples sample samples template templates tmpl tpl dist j2 erb mustache default defaults schema"
)
_SOURCE = _names("""
    py pyi go rs js jsx mjs cjs ts tsx mts cts vue svelte java kt kts scala groovy gradle c h cc cpp hpp cs fs m mm
    swift rb php pl pm lua r jl ex exs erl hs ml clj dart zig nim sol sh bash zsh fish ps1 sql graphql proto tf hcl
    html htm css scss less md mdx rst adoc pub crt cer csr lock snap svg png
""")


@remembered(8 << 20)
def is_secret_path(path: str) -> bool:
    """Whether a file is named like one that holds secrets. Its path may be sent, its content never."""
    lowered = path.lower()
    name = _without_backup_marks(lowered.rpartition("/")[2])
    if _is_in_secret_place(lowered):
        return not name.endswith(".pub")
    stem, _, suffix = name.rpartition(".")
    if name in _NAMES:
        return True
    if not _SAMPLES.isdisjoint(_parts(name)) or suffix in _SOURCE:
        return False
    if suffix in _SUFFIXES or (name.startswith(".env") and not name[4:5].isalnum()):
        return True
    if not stem:
        stem = name
    if name.endswith("_history") or name.startswith(_SSH_KEYS) or name.endswith(_SSH_KEY_ENDS):
        return True
    return ((suffix in _DATA or stem == name) and _is_secret_stem(stem)) or ".tfvars." in name or ".tfstate." in name


def _without_backup_marks(name: str) -> str:
    """`.env` for `.env~`, `.env.bak` and `#.env#`: an editor's copy holds what the file holds."""
    name = name.strip("#")
    while name.endswith(_BACKUPS):
        end = next(end for end in _BACKUPS if name.endswith(end))
        name = name.removesuffix(end)
    return name


def _is_in_secret_place(path: str) -> bool:
    anywhere = "/" + path
    if "/." not in anywhere:  # each of the places begins with a hidden folder
        return False
    for place in _PATHS:
        if place.endswith("*"):
            if f"/{place[:-1]}" in anywhere:
                return True
        elif anywhere.endswith("/" + place):
            return True
    return False


def _is_secret_stem(stem: str) -> bool:
    if stem.endswith(_STEM_ENDS) or "firebase-adminsdk" in stem:
        return True
    return any(stem == known or (stem.startswith(known) and stem[len(known)] in _MARKS) for known in _STEMS)


def _parts(name: str) -> list[str]:
    return name.replace("-", ".").replace("_", ".").split(".")
