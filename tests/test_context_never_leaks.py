"""Nothing leaves a project that should not: no file from outside, nothing of `.git`, no known secret in any text."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from sidecar.actors.context.safe_root import NotReadable, Root
from sidecar.actors.context.secrets.names import is_secret_path
from sidecar.actors.context.secrets.redaction import redact, without_credentials
from sidecar.state.models import AgentId, ResultId, StoredResult
from tests.context_world import Builds, commit, context_of, earlier, git, omitted_of, repository, sent_of, write

# Put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "aws-key": "AKIA" + "ABCDEFGHIJKLMNOP",
    "github-token": "ghp_" + "a1" * 18,
    "slack-token": "xoxb-" + "123456789012-abcdefghijkl",
    "stripe-key": "sk_live_" + "a1b2c3d4e5f6g7h8i9",
    "api-key": "sk-" + "proj-a1b2c3d4e5f6g7h8i9j0",
    "google-key": "AIza" + "b" * 35,
    "gitlab-token": "glpat-" + "abcdefghij0123456789",
    "npm-token": "npm_" + "a" * 36,
    "jwt": "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + ".abcdefghijklmnop",
    "private-key": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA " + "PRIVATE KEY-----",
    "password": "hunter2hunter2",
}
IN_TEXT = {
    kind: f"postgres://shop:{secret}@db/shop" if kind == "password" else secret for kind, secret in SECRETS.items()
}


def test_a_link_to_a_file_outside_is_told_but_never_read(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text("OUTSIDE = 1\n")
    root = repository(tmp_path / "project", {"a.py": "a = 1\n"})
    (root / "link.py").symlink_to(tmp_path / "outside.py")
    (root / "folder").symlink_to(tmp_path)
    commit(root, {}, "Link")
    for files in ((), ("link.py", "folder", "folder/outside.py", "**")):
        context = context_of(root, "chief-architect", files=files)
        assert "OUTSIDE" not in json.dumps(context["relevant_files"])
        assert omitted_of(context)["link.py"] == "symlink"


def test_a_folder_that_is_swapped_for_a_link_leads_nowhere(tmp_path: Path) -> None:
    write(tmp_path / "outside", {"a.py": "OUTSIDE = 1\n"})
    root = repository(tmp_path / "project", {"src/a.py": "a = 1\n", "b.py": "b = 1\n"})
    builds = Builds(root)
    assert "src/a.py" in builds.files()
    (root / "src" / "a.py").unlink()
    (root / "src").rmdir()
    (root / "src").symlink_to(tmp_path / "outside")
    assert "src/a.py" not in builds.files()
    with Root(root) as opened, pytest.raises(NotReadable, match="symlink"):
        opened.read("src/a.py", 100)


@pytest.mark.parametrize("path", ["../outside.py", "a/../../outside.py", "/etc/passwd", "..", "", "a/\0b", "./x"])
def test_no_path_leads_out_of_the_root(tmp_path: Path, path: str) -> None:
    (tmp_path / "outside.py").write_text("OUTSIDE = 1\n")
    write(tmp_path / "project", {"a/b.py": ""})
    with Root(tmp_path / "project") as root, pytest.raises(NotReadable):
        root.read(path, 100)


def test_a_fifo_does_not_hang_a_build(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "a = 1\n"})
    os.mkfifo(tmp_path / "pipe.py")
    context = context_of(tmp_path, files=("pipe.py",))
    assert [file["path"] for file in context["relevant_files"]] == ["a.py"]
    assert omitted_of(context)["pipe.py"] == "not a regular file"


def test_nothing_of_the_git_folder_is_sent(tmp_path: Path) -> None:
    root = repository(tmp_path / "project", {"a.py": "a = 1\n"})
    (root / ".git" / "notes.py").write_text("GITS_OWN = 1\n")
    text = json.dumps(context_of(root, "chief-architect", files=("**/*.py",)))
    assert "GITS_OWN" not in text
    assert ".git/" not in text


def test_ignored_files_are_not_even_listed(tmp_path: Path) -> None:
    files = {".gitignore": "*.log\nbuild/\n", "a.py": "a = 1\n", "build/b.py": "b = 1\n", "x.log": "log\n"}
    for root in (repository(tmp_path / "git", files), tmp_path / "plain"):
        write(root, files)
        context = context_of(root, "chief-architect", files=("**",))
        assert context["project_structure"]["files"] == [".gitignore", "a.py"]


@pytest.mark.parametrize(
    "path",
    [".env", "deploy/.env.production", "a.pem", "id_rsa", "a/id_ed25519", ".aws/credentials", ".npmrc", "x.tfstate"],
)
def test_files_named_like_secrets_are_listed_but_their_content_is_never_sent(tmp_path: Path, path: str) -> None:
    root = repository(tmp_path / "project", {path: "HIDDEN = 1\n", "a.py": "a = 1\n"})
    context = context_of(root, "chief-architect", files=(path,))
    assert path in context["project_structure"]["files"]
    assert omitted_of(context)[path] == "secret"
    assert "HIDDEN" not in json.dumps(context)


HELD_BACK = """
    .env .env.local .env-prod .env_prod .env~ .env.bak .ENV prod.env .envrc .flaskenv .dev.vars #.env#
    .env.local.swp .netrc _netrc netrc .npmrc .yarnrc.yml .pypirc .pypirc~ pip.conf .pgpass .my.cnf
    .git-credentials .htpasswd .dockercfg .dockerconfigjson .docker/config.json kubeconfig kubeconfig.yaml
    prod.kubeconfig .kube/config kube_config_cluster.yml .aws/credentials .aws/config .azure/accessTokens.json
    .ssh/config .ssh/id_rsa .gnupg/private-keys-v1.d/a.key .oci/config .config/gcloud/credentials.db
    .config/gh/hosts.yml .cargo/credentials .cargo/credentials.toml .gem/credentials .m2/settings.xml
    .gradle/gradle.properties .bundle/config .composer/auth.json .password-store/a.gpg .codex/auth.json
    .claude/.credentials.json .claude.json oauth_creds.json auth.json token.json token.txt cookies.txt
    application_default_credentials.json client_secret_123.apps.json client_secrets.json service-account.json
    service-account-prod.json serviceaccount.json my-service-account.json shop-firebase-adminsdk-a1.json
    gcp-key.json credentials credentials.json credentials.csv credentials.yml credentials.yml.enc
    aws-credentials.txt new_user_credentials.csv ada_accessKeys.csv rootkey.csv secret.yaml secrets.yml
    secrets.json secrets.toml secrets.prod.yaml db-secret.yaml .secrets.toml secrets.auto.tfvars terraform.tfvars
    prod.tfvars.json terraform.tfstate terraform.tfstate.backup .terraformrc credentials.tfrc.json vault.yml
    vault_prod.yml prod-vault.yml .vault_pass .vault_pass.txt vault-password.txt .vault-token password.txt
    passwords.csv passwd shadow .bash_history .zsh_history .psql_history .mysql_history .python_history
    .node_repl_history .sqlite_history bash_history fish_history .histfile .viminfo .lesshst id_rsa id_rsa.old
    id_ecdsa id_ed25519 id_dsa ssh_host_rsa_key deploy_rsa github_ed25519 a.pem a.key key.p8 a.p12 a.pfx a.jks
    a.keystore a.ppk a.kdbx a.ovpn master.key config/master.key private.asc secring.gpg krb5.keytab age.key .s3cfg
    .boto rclone.conf .databrickscfg .sentryclirc ngrok.yml .msmtprc wp-config.php database.yml config/database.yml
    profiles.yml sftp-config.json sitemanager.xml api_keys.json apikey.txt private_key.txt
"""
SENT = """
    .env.example .env.sample .env.template .env.dist .envrc.example .env.local.example secrets.example.yaml
    wp-config-sample.php credentials.sample.json id_rsa.pub a/id_ed25519.pub environment.py keys.py
    src/id_generator.py secrets.py auth.ts auth.go token.rs tokens.py password.py passwords.js vault.go
    credentials.py credentials.ts secret_manager.tf vault.tf key.go tests/fixtures/secrets_test.py id_rsa_test.go
    history.py auth.json.md package.json tsconfig.json settings.json config.yml values.yaml docker-compose.yml
    Cargo.toml pyproject.toml go.mod main.tf variables.tf README.md public.crt tokenizer.json tokenizer_config.json
    keyboard.json monkey.txt passenger.yml secretary.txt vaulted.txt env.py .environment .editorconfig
"""


@pytest.mark.parametrize("path", HELD_BACK.split())
def test_files_that_hold_secrets_by_custom_are_held_back(path: str) -> None:
    assert is_secret_path(path)
    assert is_secret_path("a/b/" + path)


@pytest.mark.parametrize("path", SENT.split())
def test_files_that_only_look_like_it_are_sent(path: str) -> None:
    assert not is_secret_path(path)
    assert not is_secret_path("a/b/" + path)


@pytest.mark.parametrize("kind", SECRETS)
def test_known_secrets_are_taken_out_of_every_text(tmp_path: Path, kind: str) -> None:
    secret, text = SECRETS[kind], IN_TEXT[kind]
    root = repository(tmp_path / "project", {"a.py": f"TOKEN = '''{text}'''\nlast = 1\n"}, f"Use {text}")
    stored = StoredResult(
        id=ResultId("r-1"),
        project_id="default",
        issue_id="issue-1",
        agent_id=AgentId("ada"),
        agent_type="chief-architect",
        status="success",
        result=msgspec.Raw(json.dumps({"decisions": [{"decision": f"Use {text}"}], "files_created": [text]}).encode()),
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        stored_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    raw = Builds(root).raw(query=f"why {text}", earlier=earlier(stored))
    assert json.dumps(secret)[1:-1].encode() not in raw
    assert raw.count(f"[REDACTED:{kind}]".encode()) >= 3
    context = json.loads(raw)["context"]
    assert omitted_of(context)["a.py"] == "redacted: 1"
    (file,) = context["relevant_files"]
    assert file["redacted"] == 1


def test_lines_keep_their_numbers_when_a_key_is_taken_out() -> None:
    text, count = redact(f"one\n{SECRETS['private-key']}\nlast\n")
    assert count == 1
    assert text.split("\n")[-2] == "last"
    assert text.count("\n") == 5


def test_the_remote_shows_no_credentials_and_no_path_of_this_machine(tmp_path: Path) -> None:
    root = repository(tmp_path / "project", {"a.py": "a = 1\n"})
    git(root, "remote", "add", "origin", "https://ada:hunter2@example.org/shop.git")
    assert context_of(root)["git_context"]["remote_url"] == "https://example.org/shop.git"
    assert without_credentials("git@example.org:shop.git") == "git@example.org:shop.git"
    assert without_credentials("https://example.org/shop?access_token=abc#key") == "https://example.org/shop"
    assert without_credentials("/srv/shop.git") is None


def test_what_is_excluded_is_listed_but_not_sent(tmp_path: Path) -> None:
    root = repository(tmp_path / "project", {"a.py": "a = 1\n", "gen/b.py": "b = 1\n"})
    context = Builds(root, exclude=("gen/",)).answer()["context"]
    assert [file["path"] for file in context["relevant_files"]] == ["a.py"]
    assert omitted_of(context)["gen/b.py"] == "excluded"


def test_an_agent_of_whose_kind_there_is_nothing_gets_files_all_the_same(tmp_path: Path) -> None:
    root = repository(tmp_path / "project", {"main.py": "a = 1\n"})
    for agent_type in ("documentation-expert", "test-engineer", "rust-specialist", "anyone"):
        assert sent_of(root, agent_type) == ["main.py"]
