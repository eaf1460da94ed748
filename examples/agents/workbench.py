"""What the example agents share: the frame around their work, the architect's decision, and writing a file whole."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sidecar.http.sdk import Agent, Event

log = logging.getLogger("agent")

DECISION_WITHIN_S = 60.0
COMMAND_WITHIN_S = 60.0


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the design, and the type of agent that writes it."""

    agent_type: str
    file: str


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """What the architect decided: the data of `architecture_defined`.

    record, module: the class whose instances are kept, and where it is. key: the field that names one.
    columns: (field, Python type) of the single values, the key first. lists: fields that hold several texts.
    """

    issue_id: str
    decision: str
    rationale: str
    package: str
    record: str
    module: str
    key: str
    columns: tuple[tuple[str, str], ...]
    lists: tuple[str, ...]
    components: tuple[Component, ...]

    def file_of(self, agent_type: str) -> str:
        return next(component.file for component in self.components if component.agent_type == agent_type)

    @property
    def table(self) -> str:
        return self.record.lower()


def run(work: Callable[[Agent], None]) -> None:
    """Run an agent: what goes wrong is told to the others before the process ends with it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    with Agent() as agent:
        log.info("%s works on %s: %s", agent.id, agent.issue_id, agent.task or "its part")
        try:
            work(agent)
        except Exception as error:
            agent.publish("error_encountered", {"error": str(error), "agent_type": agent.type}, topic="error")
            raise


def root_of(agent: Agent) -> Path:
    """The project's folder."""
    if agent.project_root is None:
        raise RuntimeError("PROJECT_ROOT is not set: this agent works on files")
    return agent.project_root


def await_design(agent: Agent) -> Design:
    """The architect's decision, also one from before this agent began."""
    return msgspec.convert(await_event(agent, "architecture_defined").data, Design)  # the only thread


def await_event(agent: Agent, event_type: str) -> Event:
    """The next event of a type about this agent's issue."""
    batch = agent.wait(event_type, filter=f"issue_id:{agent.issue_id}", timeout_s=DECISION_WITHIN_S)
    if not batch.events:
        raise TimeoutError(f"no {event_type} for {agent.issue_id} within {DECISION_WITHIN_S:g} s")
    return batch.events[-1]


def write(root: Path, name: str, text: str) -> str:
    """Write a file whole or not at all, under its folder of the project. Returns its name."""
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(draft).chmod(0o644)
    Path(draft).replace(target)
    log.info("wrote %s (%d lines)", name, text.count("\n"))
    return name


def interpreter(root: Path) -> str:
    """The project's own Python, else the one that runs this agent."""
    own = root / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def command(root: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder and hand back its exit code and output."""
    shown = (argument if argument.isprintable() else "…" for argument in argv[1:])
    log.info("$ %s", " ".join((Path(argv[0]).name, *shown)))
    # Without bytecode files the project holds what the agents wrote and nothing else.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        argv, cwd=root, env=environment, capture_output=True, text=True, timeout=COMMAND_WITHIN_S, check=False
    )


class Stopwatch:
    """Milliseconds since it was made, for `metrics.execution_time_ms`."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def ms(self) -> int:
        return round((time.monotonic() - self._started) * 1000)


def finish(
    agent: Agent,
    event_type: str,
    *,
    watch: Stopwatch,
    status: str = "success",
    data: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    decisions: Sequence[str] = (),
    files_created: Sequence[str] = (),
    **fields: Any,
) -> None:
    """Store the result and say so. The keys make a repeat after a crash count once."""
    result = {
        "status": status,
        "decisions": decisions,
        "files_created": files_created,
        "metrics": {"execution_time_ms": watch.ms(), **(metrics or {})},
        **fields,
    }
    stored = agent.store(result, key=f"{agent.id}:{event_type}")
    log.info("result %s", stored.id)
    said = {"status": status, "agent_type": agent.type, "files": list(files_created), **(data or {})}
    agent.publish(event_type, said, key=f"{agent.id}:{event_type}")
    log.info("published %s", event_type)
