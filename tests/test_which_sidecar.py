"""Commands find the sidecar of the project they are run in, and send a token to no other program."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.access.minting import mint_operator_token
from sidecar.http.cli.main import main
from sidecar.http.client.vouching import NotTheSidecar, SidecarCheck
from sidecar.http.config import Flags, load
from sidecar.http.sdk import ONE_ATTEMPT, Client
from sidecar.http.serve import Sidecar, running
from sidecar.http.storage import URL_FILE, token_key
from sidecar.state.proof import address_of, is_nonce, proof_of

NONCE = "0123456789abcdef" * 4


class World:
    """A user with a home folder and projects; nothing of this machine's own is seen."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self.base = base
        self._monkeypatch = monkeypatch
        self._stack = stack
        self.env = {"XDG_STATE_HOME": str(base / "state"), "XDG_CONFIG_HOME": str(base / "config")}

    def folder(self, name: str, settings: str = "") -> Path:
        folder = self.base / name
        folder.mkdir(parents=True, exist_ok=True)
        if settings:
            (folder / "sidecar.toml").write_text(settings)
        return folder

    def serve(self, folder: Path, **flags: Any) -> Sidecar:
        config = load(Flags(**{"port": 0, **flags}), self.env, working_dir=folder)
        return self._stack.enter_context(running(config))

    def run(self, folder: Path, *arguments: str, code: int = 0, **env: str) -> Result:
        self._monkeypatch.chdir(folder)
        cleared = dict.fromkeys(("SIDECAR_URL", "SIDECAR_STORAGE", "JWT_TOKEN", "SIDECAR_CONFIG", "SIDECAR_PORT"))
        done = CliRunner().invoke(main, arguments, env=cleared | self.env | env, catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    def url_in(self, folder: Path, **env: str) -> str:
        return self.run(folder, "dashboard", "--print", **env).stdout.partition("/login")[0]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, monkeypatch, stack)


class Thief(http.server.BaseHTTPRequestHandler):
    """Answers everything, keeps what it is sent, and may hand a request for a proof on to a real sidecar."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append(self.headers.get("Authorization"))
        body, status = b"{}", 404
        if server.relay is not None and self.path.startswith("/api/proof"):
            try:
                body = urllib.request.urlopen(server.relay(self.path), timeout=10).read()
            except urllib.error.HTTPError as error:
                body, status = error.read(), error.code
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@contextmanager
def thief(relay: Callable[[str], str] | None = None) -> Iterator[tuple[str, list[str | None]]]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Thief) as server:
        server.seen, server.relay = [], relay  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.seen  # type: ignore[attr-defined]
        finally:
            server.shutdown()


class TestCommandsFindTheirSidecar:
    def test_by_the_url_that_it_left_next_to_its_lock_also_from_subfolders(self, world: World) -> None:
        one, two = world.folder("one"), world.folder("two", "[server]\nport = 3001\nstorage = 'state'\n")
        first, second = world.serve(one), world.serve(two)
        below = world.folder("one/a/b")
        assert [world.url_in(folder) for folder in (one, below, two)] == [first.url, first.url, second.url]
        for sidecar in (first, second):
            assert (sidecar.config.storage / URL_FILE).read_text() == f"{sidecar.url}\n"
            assert (sidecar.config.storage / URL_FILE).stat().st_mode & 0o777 == 0o600

    def test_whatever_port_the_settings_and_the_environment_name(self, world: World) -> None:
        one, two = world.folder("one"), world.folder("two")
        first, second = world.serve(one), world.serve(two)
        (two / "sidecar.toml").write_text(f"[server]\nport = {first.port}\n")
        assert world.url_in(two) == second.url
        found = json.loads(world.run(two, "doctor", "--format", "json", SIDECAR_PORT=str(first.port)).stdout)
        (server,) = [finding for finding in found["findings"] if finding["check"] == "server"]
        assert (server["verdict"], second.url in server["found"]) == ("ok", True)

    def test_and_none_when_it_was_stopped(self, world: World) -> None:
        folder = world.folder("one")
        with running(load(Flags(port=0), world.env, working_dir=folder)) as sidecar:
            storage = sidecar.config.storage
        assert not (storage / URL_FILE).exists()
        assert "no sidecar runs with storage" in world.run(folder, "status", code=3).stderr

    def test_and_none_when_it_was_killed(self, world: World) -> None:
        folder = world.folder("one")
        sidecar = world.serve(folder)
        (sidecar.config.storage / URL_FILE).write_text("http://127.0.0.1:9\n")
        assert "no sidecar answers at http://127.0.0.1:9" in world.run(folder, "status", code=3).stderr
        found = json.loads(world.run(folder, "doctor", "--format", "json", code=1).stdout)["findings"]
        assert any("does not answer on http://127.0.0.1:9" in finding["found"] for finding in found)

    def test_that_has_its_secret_from_the_environment(self, world: World) -> None:
        folder, secret = world.folder("one"), "x" * 40
        world.env["SIDECAR_JWT_SECRET"] = secret
        sidecar = world.serve(folder)
        assert world.url_in(folder) == sidecar.url
        other = world.run(folder, "status", code=3, SIDECAR_JWT_SECRET="y" * 40)
        assert "is not the sidecar with storage" in other.stderr

    @pytest.mark.parametrize(
        "settings", ["[profile.x]\n", "[server]\nprot = 1\n", "[profiles.x]\ncomand = 1\n", "[server\n"]
    )
    @pytest.mark.parametrize("command", [("status",), ("token", "--operator"), ("agent", "list"), ("audit", "verify")])
    def test_whatever_slip_the_configuration_has(self, world: World, settings: str, command: tuple[str, ...]) -> None:
        folder = world.folder("one")
        world.serve(folder)
        (folder / "sidecar.toml").write_text(settings)
        said = world.run(folder, *command).stderr
        if "comand" not in settings:
            assert said.startswith("note: ")
            assert "did you mean" in said or "is not TOML" in said

    def test_to_stop_it_whatever_slip_the_configuration_has(self, world: World) -> None:
        folder = world.folder("one")
        argv = [sys.executable, "-m", "sidecar.http.cli.main"]
        env = {**os.environ, **world.env}
        server = subprocess.Popen(
            [*argv, "serve", "--port", "0"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        assert "listens on" in server.stdout.readline()
        (folder / "sidecar.toml").write_text("[profile.x]\n")
        stopped = world.run(folder, "stop")
        assert stopped.stdout == f"stopped process {server.pid}\n"
        assert "did you mean profiles?" in stopped.stderr
        assert server.wait(20) == 0


class TestAToken:
    def test_goes_to_no_other_program_that_a_projects_file_names(self, world: World) -> None:
        good = world.folder("good")
        sidecar = world.serve(good)
        token = mint_operator_token(sidecar.config.storage, {}).text
        with thief() as (url, seen):
            port = url.rpartition(":")[2]
            for settings in (
                f"port = {port}",
                f"port = {port}\nhost = '127.0.0.1'\nstorage = '{sidecar.config.storage}'",
                f"port = {port}\nstorage = '../state/sidecar/{sidecar.config.storage.name}'",
                f"port = {port}\nproject_root = '{good}'",
                f"port = {port}\nhost = '203.0.113.1'",
            ):
                evil = world.folder("evil", f"[server]\n{settings}\n")
                for env in ({}, {"JWT_TOKEN": token}):
                    world.run(evil, "status", code=3, **env)
            assert seen == []

    def test_goes_to_no_storage_of_a_project_that_comes_with_a_secret_that_others_know(self, world: World) -> None:
        evil = world.folder("evil", "[server]\nstorage = 'state'\n")
        (evil / "state").mkdir(mode=0o700)
        (evil / "state" / "secret").write_text("ab" * 32)
        good = world.serve(world.folder("good"))
        token = mint_operator_token(good.config.storage, {}).text
        with thief() as (url, seen):
            (evil / "state" / URL_FILE).write_text(url)
            said = world.run(evil, "status", code=1, JWT_TOKEN=token).stderr
            assert "JWT_TOKEN of the environment is not a token of the sidecar with storage" in said
            assert "AUTH_001" in said
            assert seen == []

    @pytest.mark.parametrize("how", ["alone", "relayed", "relayed for its own address"])
    def test_goes_to_no_program_that_took_the_address_over(self, world: World, how: str) -> None:
        good = world.folder("good")
        sidecar = world.serve(good)
        token = mint_operator_token(sidecar.config.storage, {}).text

        def relay(path: str) -> str:
            query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query))
            if how.endswith("address"):
                query["address"] = f"127.0.0.1:{sidecar.port}"
            return f"{sidecar.url}/api/proof?{urllib.parse.urlencode(query)}"

        with thief(None if how == "alone" else relay) as (url, seen):
            (sidecar.config.storage / URL_FILE).write_text(url)
            for command in ((), ("--url", url)):
                assert "was sent no token" in world.run(good, "status", *command, code=3).stderr
            world.run(good, "status", code=3, JWT_TOKEN=token)
            assert seen == [None] * 3
            (sidecar.config.storage / URL_FILE).write_text(sidecar.url)

    def test_goes_where_its_owner_says_when_both_are_named(self, world: World) -> None:
        with thief() as (url, seen):
            world.run(world.folder("any"), "agent", "list", "--url", url, "--token", "a.b.c", code=1)
        assert seen == ["Bearer a.b.c"]

    def test_that_is_refused_is_told_by_where_it_came_from_and_where_it_went(self, world: World) -> None:
        one, two = world.serve(world.folder("one")), world.serve(world.folder("two"))
        token = mint_operator_token(one.config.storage, {}).text
        said = world.run(world.folder("any"), "status", "--url", two.url, code=1, JWT_TOKEN=token).stderr
        assert f"JWT_TOKEN of the environment was sent to the sidecar at {two.url}" in said
        said = world.run(world.folder("any"), "status", "--url", two.url, "--token", token, code=1).stderr
        assert f"the token of --token was sent to the sidecar at {two.url}" in said
        assert "AUTH_001" in said

    def test_is_sent_over_no_new_connection_before_the_proof(self, world: World) -> None:
        sidecar = world.serve(world.folder("one"))
        storage = sidecar.config.storage
        with thief() as (url, seen):
            check = SidecarCheck(token_key(storage, {}), storage)
            with Client(url, "secret-token", retries=ONE_ATTEMPT, check=check) as client:
                for _ in range(2):
                    with pytest.raises(NotTheSidecar):
                        client.agents()
            assert seen == [None, None]
        with Client(sidecar.url, mint_operator_token(storage, {}).text, retries=ONE_ATTEMPT, check=check) as client:
            assert client.agents() == ()

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 100_000,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            'HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{"address":"a","proof":"é"}  '.encode(),
        ],
        ids=["nothing", "other protocol", "long head", "long body", "closing", "redirect", "continue", "other proof"],
    )
    def test_goes_to_no_program_however_it_answers(self, world: World, answer: bytes) -> None:
        folder = world.folder("one")
        sidecar = world.serve(folder)
        seen: list[bytes] = []
        with socket.create_server(("127.0.0.1", 0)) as other:

            def serve() -> None:
                with other.accept()[0] as connection, suppress(OSError):
                    seen.append(connection.recv(65536))
                    connection.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            (sidecar.config.storage / URL_FILE).write_text(f"http://127.0.0.1:{other.getsockname()[1]}\n")
            world.run(folder, "agent", "list", code=3)
            thread.join(20)
        assert [b"Authorization" in one for one in seen] == [False]

    def test_is_not_waited_for_where_a_pipe_lies_in_the_storage(self, world: World) -> None:
        folder = world.folder("one", "[server]\nstorage = 'state'\n")
        (folder / "state").mkdir(mode=0o700)
        for name in (URL_FILE, "secret"):
            os.mkfifo(folder / "state" / name)
        world.run(folder, "status", code=3)


class TestAProof:
    @given(st.binary(min_size=32, max_size=64), st.text(max_size=20), st.text(max_size=20))
    def test_is_of_one_secret_address_and_nonce(self, secret: bytes, address: str, nonce: str) -> None:
        given_ = proof_of(secret, address=address, nonce=nonce)
        assert given_ == proof_of(secret, address=address, nonce=nonce)
        assert given_ != proof_of(secret, address=address + "0", nonce=nonce)
        assert given_ != proof_of(secret, address=address, nonce=nonce + "0")
        assert given_ != proof_of(secret + b"0", address=address, nonce=nonce)

    def test_is_no_signature_of_a_token(self) -> None:
        secret = b"s" * 32
        token = jwt.encode({"a": 1}, secret, algorithm="HS256")
        signed, _, signature = token.rpartition(".")
        for address, nonce in ((signed, ""), ("", signed), ("127.0.0.1:1", NONCE)):
            proof = bytes.fromhex(proof_of(secret, address=address, nonce=nonce))
            assert proof != jwt.utils.base64url_decode(signature)
            assert proof != hashlib.sha256(secret).digest()

    @pytest.mark.parametrize("nonce", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "٠" * 64, "0" * 10_000])
    def test_is_given_for_no_other_text(self, sidecar: Any, nonce: str) -> None:
        assert not is_nonce(nonce)
        asked = {"nonce": nonce, "address": address_of("127.0.0.1", sidecar.sidecar.port)}
        assert sidecar.client().get("/api/proof", params=asked).status_code == 400

    def test_is_given_without_a_token_for_its_own_address_alone(self, sidecar: Any) -> None:
        anyone, port = sidecar.client(), sidecar.sidecar.port
        answer = anyone.get("/api/proof", params={"nonce": NONCE, "address": f"127.0.0.1:{port}"})
        key = token_key(sidecar.storage, {})
        assert answer.json()["proof"] == key.prove(address=f"127.0.0.1:{port}", nonce=NONCE)
        for other in (f"127.0.0.1:{port + 1}", f"127.0.0.2:{port}", "evil.example:1", ""):
            refused = anyone.get("/api/proof", params={"nonce": NONCE, "address": other})
            assert refused.status_code == 400


class TestWhatIsMisspelt:
    def test_a_project_that_is_not_configured_is_said_to_be_that(self, world: World) -> None:
        folder = world.folder("one", "[projects.shop]\nroot = '.'\n")
        world.serve(folder)
        for command in (
            ("agent", "list"),
            ("events", "list"),
            ("events", "mailboxes"),
            ("events", "dead-letters"),
            ("events", "subscribe", "tick"),
            ("events", "publish", "tick"),
            ("results", "list"),
            ("results", "store", "issue-1", '{"status": "success"}'),
            ("audit", "list"),
            ("top",),
        ):
            said = world.run(folder, *command, "--project", "shopp", code=1).stderr
            assert "project shopp is not configured" in said, command
        assert world.run(folder, "agent", "list", "--project", "shop").stderr == "no agents\n"

    @pytest.mark.parametrize(
        ("agent_type", "hint"),
        [("pyhton-specialist", None), ("python-specialst", "python-specialist"), ("test-enginer", "test-engineer")],
    )
    def test_an_agent_type_is_told_with_the_class_that_it_has(
        self, world: World, agent_type: str, hint: str | None
    ) -> None:
        folder = world.folder("one", "[profiles.poet]\nclass = 'qa'\n")
        world.serve(folder)
        for command in (("token", "--agent-type", agent_type), ("context", "get", "issue-1", agent_type)):
            said = world.run(folder, *command).stderr
            if hint is None:
                assert said == ""
            else:
                assert f"agent type {agent_type} is not known here" in said
                assert f"class support; did you mean {hint}?" in said
        assert world.run(folder, "token", "--agent-type", "poet").stderr == ""

    def test_a_token_has_the_class_that_the_configuration_gives_its_type(self, world: World) -> None:
        folder = world.folder("one", "[profiles.poet]\nclass = 'qa'\n")
        world.serve(folder)
        token = world.run(folder, "token", "--agent-type", "poet").stdout.strip()
        assert "write_results" in jwt.decode(token, options={"verify_signature": False})["permissions"]


def test_folders_whose_names_are_not_utf8_are_served_and_shown(world: World) -> None:
    folder = Path(os.fsdecode(os.fsencode(world.base) + b"/pro\xffject"))
    folder.mkdir()
    (folder / "a.py").write_text("x = 1\n")
    storage = Path(os.fsdecode(os.fsencode(world.base) + b"/sto\xe9rage"))
    sidecar = world.serve(folder, storage=storage)
    env = {"SIDECAR_STORAGE": str(storage)}
    status = json.loads(world.run(folder, "status", "--format", "json", **env).stdout)
    assert status["status"]["storage"]["storage_path"].endswith("sto\\xe9rage")
    context = json.loads(
        world.run(folder, "context", "get", "i", "python-specialist", "--format", "json", **env).stdout
    )
    assert context["context"]["project_structure"]["root"] == "pro\\xffject"
    assert world.url_in(folder, **env) == sidecar.url
    assert "sto\\udce9rage" in world.run(folder, "doctor", **env).stdout
