"""Agents wait for `sidecar serve` to listen, and most of that wait is Python importing: what few need comes later.

The command itself runs in a process of its own, which tells the modules that it has imported so far.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest

from sidecar.http.access.minting import mint_operator_token
from tests.conftest import PROFILES

PROGRAM = """
import sys, threading

def tell():
    for _ in sys.stdin:
        print(*sys.modules, flush=True)

threading.Thread(target=tell, daemon=True).start()
from sidecar.http.cli.main import main
main(prog_name="sidecar")
"""

# What each is imported for, if at all.
BY_REQUEST = {
    "/metrics": ("prometheus_client", "http.server", "wsgiref", "sidecar.http.routes.exposition"),
    "/mcp": ("sidecar.http.mcp.methods", "sidecar.http.mcp.tools"),
    "/openapi.json": ("sidecar.http.routes.openapi",),
}
# A start verifies no token and finds no route. urllib, http.client, email and ssl come with these libraries.
BY_FIRST_REQUEST = ("jwt", "cryptography", "bottle", "http.client", "urllib.request", "email", "ssl")
NEVER = ("opentelemetry", "httpx", "requests", "sidecar.http.client", "sidecar.examples.demo")

CALLERS = 6


class Served:
    """`sidecar serve` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str, token: str) -> None:
        self._process = process
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30.0)

    def imported(self) -> set[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return set(self._process.stdout.readline().split())

    def ask(self, path: str) -> httpx.Response:
        if path != "/mcp":
            return self.client.get(path)
        return self.client.post(path, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})


@pytest.fixture
def served(tmp_path: Path, project: Path) -> Iterator[Served]:
    config = tmp_path / "sidecar.toml"
    config.write_text(PROFILES)
    storage = tmp_path / "storage"
    token = mint_operator_token(storage, {}).text
    arguments = ["serve", "--port", "0", "--config", config, "--storage", storage, "--project-root", project]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        try:
            assert process.stdout is not None
            yield Served(process, process.stdout.readline().split()[-1], token)
        finally:
            process.terminate()
            process.wait(20)


def test_a_server_that_listens_has_imported_nothing_that_only_requests_need(served: Served) -> None:
    assert served.imported() & {*BY_FIRST_REQUEST} == set()
    assert served.client.get("/api/agents").status_code == 200
    assert served.imported() >= {"jwt", "bottle"}


def test_a_server_that_has_spawned_an_agent_has_imported_nothing_that_only_others_need(served: Served) -> None:
    assert served.client.get("/health").status_code == 200
    spawned = served.client.post("/api/agents/spawn", json={"agent_type": "python-specialist", "issue_id": "issue-1"})
    assert spawned.status_code == 201
    exited: dict[str, Any] = {"timeout": 15_000, "filter": f"agent_id:{spawned.json()['agent_id']}"}
    assert served.client.get("/api/events/wait/agent_exited", params=exited).json()["events"]
    imported = served.imported()
    assert "sidecar.http.serve" in imported
    for modules in (*BY_REQUEST.values(), NEVER):
        assert imported & {*modules} == set()


@pytest.mark.parametrize(("path", "modules"), BY_REQUEST.items())
def test_who_asks_first_gets_the_whole_answer_however_many_ask_at_once(
    served: Served, path: str, modules: tuple[str, ...]
) -> None:
    together = Barrier(CALLERS)

    def ask(_: int) -> Any:
        together.wait(10)
        return served.ask(path)

    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(ask, range(CALLERS)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1 or path == "/metrics"  # whose numbers go on
    assert served.imported().issuperset(modules)


def test_who_else_signs_with_pyjwt_in_the_same_process_has_all_of_it() -> None:
    program = """
import jwt as before
import sidecar.state.identity, sidecar.state.signing
import jwt, cryptography
assert jwt is before and jwt.PyJWKClient and "RS256" in jwt.algorithms.get_default_algorithms()
"""
    for which in (program, program.replace("import jwt as before", "before = None").replace("jwt is before and ", "")):
        subprocess.run([sys.executable, "-c", which], check=True, timeout=20)
