"""The `sidecar` fixture: a whole sidecar as production runs it, on a free port, over a scratch git project.

Every answer that a test's client gets must be one that `/openapi.json` documents, whatever the test is about.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings

from sidecar.http.access.minting import mint_agent_token, mint_operator_token
from sidecar.http.config import Flags, load
from sidecar.http.serve import Sidecar, running
from sidecar.state.identity import AgentClass
from tests.documented import must_be_documented
from tests.served import end_what_is_left

# How fast examples are made says how busy the machine is, nothing about the product.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

PYTHON = sys.executable

# A shell that runs the tests in the background has SIGINT ignored, and so would have every program they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# So has one that `nohup` started SIGHUP, which a server then leaves ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Few tests that take long each: begun first, so that no process is left with them at the end.
LONG_FILES = ("test_tutorial.py", "test_rust_agents.py", "test_demo.py", "test_examples.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


@pytest.fixture(autouse=True)
def no_server_outlives_its_test() -> Iterator[None]:
    yield
    end_what_is_left()


# python: done at once. go: runs until it is stopped. rust: crashes until it is given up.
PROFILES = f"""
[profiles.python-specialist]
command = ["{PYTHON}", "-c", "print('done')"]

[profiles.go-specialist]
command = ["{PYTHON}", "-c", "import signal; print('ready', flush=True); signal.pause()"]
stop_timeout_seconds = 5

[profiles.rust-specialist]
command = ["{PYTHON}", "-c", "import sys; print('broken', file=sys.stderr); raise SystemExit(3)"]
max_restarts = 2
backoff_initial_seconds = 0.01
backoff_max_seconds = 0.02
"""


class LiveSidecar:
    """A running sidecar and who a test may be to it. `operator` may do everything."""

    def __init__(self, sidecar: Sidecar, project: Path, stack: ExitStack) -> None:
        self.sidecar = sidecar
        self.project = project
        self.storage = sidecar.config.storage
        self.url = sidecar.url
        self._stack = stack
        self.operator = self.client(self.operator_token())

    def operator_token(self, **claims: Any) -> str:
        return mint_operator_token(self.storage, self.sidecar.config.environ, **claims).text

    def token(
        self,
        agent_type: str = "python-specialist",
        agent_id: str = "agent-1",
        *,
        project_id: str = "default",
        issue_id: str | None = None,
        agent_class: AgentClass | None = None,
        ttl_s: int = 3600,
    ) -> str:
        return mint_agent_token(
            self.storage,
            self.sidecar.config.environ,
            agent_id=agent_id,
            agent_type=agent_type,
            project_id=project_id,
            issue_id=issue_id,
            agent_class=agent_class,
            ttl_s=ttl_s,
        ).text

    def client(self, token: str | None = None, **headers: str) -> httpx.Client:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        hooks = {"response": [must_be_documented]}
        # There is no TLS here, and to read the authorities it would trust takes 30 ms each time.
        client = httpx.Client(base_url=self.url, headers=headers, timeout=30.0, event_hooks=hooks, verify=False)
        return self._stack.enter_context(client)

    def stop(self) -> None:
        """End it now, as it ends after the test: it drains."""
        self._stack.close()

    def agent(self, agent_type: str = "python-specialist", agent_id: str = "agent-1", **claims: Any) -> httpx.Client:
        """A client with the token of an agent that was minted by hand."""
        return self.client(self.token(agent_type, agent_id, **claims))

    def spawn(self, agent_type: str, issue_id: str = "issue-1", **fields: Any) -> dict[str, Any]:
        answer = self.operator.post(
            "/api/agents/spawn", json={"agent_type": agent_type, "issue_id": issue_id, **fields}
        )
        assert answer.status_code == 201, answer.text
        spawned: dict[str, Any] = answer.json()
        return spawned

    def wait_for(self, event_type: str, filter: str = "", *, timeout_s: float = 15.0) -> dict[str, Any]:
        """The first event of the type that passes the filter, from the beginning of the log."""
        answer = self.operator.get(
            f"/api/events/wait/{event_type}",
            params={
                "timeout": int(timeout_s * 1000),
                "filter": filter,
                "limit": 1,
                "consumer": uuid.uuid4().hex,
            },
        )
        assert answer.status_code == 200, answer.text
        events = answer.json()["events"]
        assert events, f"no {event_type} within {timeout_s:g} s"
        event: dict[str, Any] = events[0]
        return event


StartSidecar = Callable[..., LiveSidecar]


@pytest.fixture(scope="session", autouse=True)
def bytecode_is_kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where Python is told to write no bytecode, each server that is started would compile the package anew."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("PYTHONDONTWRITEBYTECODE"):
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.fixture(scope="session")
def committed_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `project` is a copy of: to make one takes ten times as long as to copy it."""
    root = tmp_path_factory.mktemp("committed") / "project"
    (root / "src").mkdir(parents=True)
    (root / "src" / "app.py").write_text("def answer():\n    return 42\n")
    (root / "README.md").write_text("# A project\n")
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-C", str(root)]
    subprocess.run([*git, "init", "-q", "-b", "main", "--template="], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "Begin"], check=True)
    return root


@pytest.fixture
def project(tmp_path: Path, committed_project: Path) -> Path:
    """A git project of two files and one commit."""
    return shutil.copytree(committed_project, tmp_path / "project")


@pytest.fixture
def start_sidecar(tmp_path: Path, project: Path) -> Iterator[StartSidecar]:
    """Starts a sidecar with these settings (TOML) over the profiles above; stopped when the test ends."""
    with ExitStack() as stack:

        def start(
            settings: str = "", *, profiles: str = PROFILES, environ: dict[str, str] | None = None, **flags: Any
        ) -> LiveSidecar:
            file = tmp_path / f"{uuid.uuid4().hex}.toml"
            file.write_text(textwrap.dedent(settings) + profiles)
            asked = {"port": 0, "storage": tmp_path / "storage", "project_root": project, "config": file, **flags}
            config = load(Flags(**asked), environ or {}, working_dir=tmp_path)
            sidecar = stack.enter_context(running(config))
            return LiveSidecar(sidecar, project, stack)

        yield start


@pytest.fixture
def sidecar(start_sidecar: StartSidecar) -> LiveSidecar:
    return start_sidecar()
