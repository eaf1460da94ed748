"""Schemathesis makes requests up from the API's description and holds a running server's answers to it.

No 5xx, no status that is not documented, headers and bodies as their schemas say; what fits the description is taken,
what does not is refused. The requests are the same in every run. The event stream, an answer without an end, has its
tests in test_event_streams.py.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sidecar.http.config import Flags, load
from sidecar.http.mcp.rpc import SELF_CONTAINED
from sidecar.http.serve import running
from tests.conftest import LiveSidecar
from tests.documented import Operation, document, operations

EXAMPLES = 10
SOAK_EXAMPLES = 60
STREAM = "/api/events/stream"

# Nothing that a request makes up can run anything but these, two at a time.
PROFILES = f"""
[agents]
max_concurrent = 2
[profiles.python-specialist]
command = ["{sys.executable}", "-c", ""]
[profiles.go-specialist]
command = ["{sys.executable}", "-c", "import signal; signal.pause()"]
stop_timeout_seconds = 1
"""

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    positive_data_acceptance,
]

FILTERS = ("", "status:success", "!a:1", "a:1|2,b:x*", 'a:"x y"', "data.deep.er:>=90")
schemathesis.openapi.format("event-filter", st.sampled_from(FILTERS))
schemathesis.openapi.format("path-globs", st.sampled_from(("", "src/*.py", "README.md,src/**")))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSidecar]:
    """One for all operations: what some leave behind, others find."""
    directory = tmp_path_factory.mktemp("fuzzed")
    project = directory / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "app.py").write_text("answer = 42\n")
    file = directory / "sidecar.toml"
    file.write_text(PROFILES)
    flags = Flags(port=0, storage=directory / "storage", project_root=project, config=file)
    with ExitStack() as stack, running(load(flags, {}, working_dir=directory)) as sidecar:
        live = LiveSidecar(sidecar, project, stack)
        live.spawn("go-specialist")
        live.wait_for("agent_exited", f"agent_id:{live.spawn('python-specialist')['agent_id']}")
        yield live


@pytest.fixture(scope="module")
def known(server: LiveSidecar) -> dict[str, list[str]]:
    """Values of path parameters that mean something, by name."""
    own = {"agent_id": "fuzzer", "agent_type": "operator", "issue_id": "issue-1", "project_id": "default"}
    client = server.client(server.operator_token(agent_id="fuzzer"))
    stored = client.post("/api/results", json={**own, "result": {"status": "success"}}).json()
    agents = client.get("/api/agents").json()["agents"]
    return {
        "agent_id": [agent["agent_id"] for agent in agents],
        "result_id": [stored["id"]],
        "issue_id": ["issue-1"],
        "agent_type": ["python-specialist"],
        "event_type": ["result_stored", "step"],
        "asset": ["app.js", "style.css", "icon.svg"],
        "address": [f"127.0.0.1:{server.sidecar.port}"],
    }


def mended(case: Case, draw: st.DataObject, known: dict[str, list[str]], mode: GenerationMode) -> Case:
    """The case with ids of things that are there, now and then, and without waits that take long."""
    for name in case.path_parameters or {}:
        if name in known and mode is GenerationMode.POSITIVE and draw.draw(st.booleans(), label=name):
            case.path_parameters[name] = draw.draw(st.sampled_from(known[name]))
    # An empty list is no query field at all, so nothing would be wrong; a cursor is what an answer said.
    assume(not any(value in ([], {}) for value in (case.query or {}).values()))
    if mode is GenerationMode.POSITIVE and case.query and "cursor" in case.query:
        del case.query["cursor"]
    if mode is GenerationMode.POSITIVE and case.query and case.path == "/api/proof":
        case.query = {"nonce": "0" * 64, "address": known["address"][0]}
    if mode is GenerationMode.POSITIVE and case.query and "since" in case.query:
        case.query.pop("strict", None)  # an id that the log has never reached is a 410 then
    if case.query and isinstance(case.query.get("timeout"), int | float):
        case.query["timeout"] = min(case.query["timeout"], 0.01 if "logs" in case.path else 5)
    elif "/wait" in case.path and (not case.query or "timeout" not in case.query):
        case.query = {**(case.query or {}), "timeout": 0}
    if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
        fix_body(case)
    return case


def fix_body(case: Case) -> None:
    """What a schema cannot say: fields that must be the token's or the path's, a type that has a command."""
    assert isinstance(case.body, dict)
    body = case.body
    if case.path == "/api/results":
        body |= {"agent_id": "fuzzer", "agent_type": "operator", "timestamp": "2026-01-31T09:00:00+01:00"}
    elif case.path == "/api/agents/spawn":
        body |= {"agent_type": "python-specialist", "environment": {"TASK_EXTRA": "1"}}
        body.pop("task", None)
    elif case.path == "/api/events/{event_type}":
        body.pop("event_type", None)
        body.pop("publisher", None)
        if isinstance(
            body.get("ttl_seconds"), float
        ):  # 60.0 is an integer to JSON Schema, and to nobody who writes one
            body["ttl_seconds"] = int(body["ttl_seconds"])


def fuzzed() -> list[Any]:
    """Each operation with requests that fit, and, where it reads anything, with ones that do not."""
    return [
        pytest.param(operation, mode, id=f"{operation!r} {mode.value}")
        for operation in operations()
        if operation.path != STREAM
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or has_what_can_be_wrong(operation)
    ]


def has_what_can_be_wrong(operation: Operation) -> bool:
    """Any text is a header's value."""
    checked = [parameter for parameter in operation.about["parameters"] if parameter["in"] != "header"]
    return bool(checked) or "requestBody" in operation.about


def described() -> dict[str, Any]:
    """The description without security: requests without a token are tested where tokens are."""
    found = copy.deepcopy(document())
    for methods in found["paths"].values():
        for about in methods.values():
            about.pop("security", None)
    return found


@pytest.fixture(scope="module")
def schema() -> Any:
    return schemathesis.openapi.from_dict(described())


@pytest.mark.parametrize(("operation", "mode"), fuzzed())
@pytest.mark.parametrize("examples", [EXAMPLES, pytest.param(SOAK_EXAMPLES, marks=pytest.mark.soak)])
def test_answers_as_described(
    server: LiveSidecar,
    known: dict[str, list[str]],
    schema: Any,
    examples: int,
    operation: Operation,
    mode: GenerationMode,
) -> None:
    tested = schema[operation.path][operation.method]
    client = server.client(server.operator_token(agent_id="fuzzer"))
    headers = dict(client.headers)
    if operation.about["tags"] == ["mcp"] and mode is GenerationMode.NEGATIVE:
        headers["MCP-Protocol-Version"] = SELF_CONTAINED[-1]  # with a handshake a message is refused with 200

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(draw=st.data())
    def holds(draw: st.DataObject) -> None:
        case: Case = mended(draw.draw(tested.as_strategy(mode)), draw, known, mode)
        case.call_and_validate(base_url=server.url, headers=headers, checks=CHECKS)

    holds()
