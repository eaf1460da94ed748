"""SupervisedAgent: an agent of the Spawner: its record, and its state that exists only while the sidecar runs."""

from __future__ import annotations

import time
from sys import getsizeof

import msgspec

from ...state.agent_entries import AgentRecord
from ...state.errors import SidecarError
from ...state.identity import Token
from ...state.models import AgentId, AgentState, AgentStatus, ProcessIdentity, WaitingFor
from ...supervision.process import StartedProcess
from ...supervision.process_tree import TreeProcess
from ...supervision.profile import Profile
from ...supervision.steps import AgentExited
from ..runtime.asking import Later

Role = tuple[str, str, str]  # project, issue and type: on this others of the issue may depend

RUNS = frozenset({AgentState.STARTING, AgentState.RUNNING, AgentState.STOPPING})  # there may be a process
ENDED = frozenset(state for state in AgentState if state.has_ended)
WAITS = frozenset({AgentState.QUEUED, AgentState.BLOCKED})  # for a slot or an agent it depends on
HOLDS_SLOT = RUNS | {AgentState.BACKING_OFF}


class SupervisedAgent(msgspec.Struct):
    """An agent, with the state of its running incarnation and the requests that wait for it.

    token: of the running incarnation, where this sidecar made it. stop_at: monotonic, when SIGKILL follows SIGTERM; 0
    while the sidecar is not ending its process. is_killed: SIGKILL has been sent, so that whatever turns up of its tree
    is killed too. exited: its first process has ended while the sidecar was ending it; the tree may live on.
    gone_at_ask: the census that shows whether anything is left of it. signalled: the processes that have had their
    SIGTERM. drop_waiters: answered when nothing is left of what ran before. excused_s: of this incarnation's time, in
    which the sidecar did not run. waiting_for: as last looked at, while it waits for its start.
    """

    record: AgentRecord
    profile: Profile
    process: StartedProcess | None = None
    token: Token | None = None
    stop_at: float = 0.0
    is_killed: bool = False
    exited: AgentExited | None = None
    gone_at_ask: int = 0
    signalled: set[ProcessIdentity] = msgspec.field(default_factory=set)
    stop_waiters: list[Later[AgentStatus]] = msgspec.field(default_factory=list)
    start_waiters: list[Later[AgentStatus]] = msgspec.field(default_factory=list)
    drop_waiters: list[Later[AgentStatus]] = msgspec.field(default_factory=list)
    last_heard: float = 0.0
    excused_s: float = 0.0
    tree: tuple[TreeProcess, ...] = ()
    sampled_at: float = 0.0
    cpu_percent: float = 0.0
    waiting_for: WaitingFor | None = None

    @property
    def id(self) -> AgentId:
        return self.record.spec.agent_id

    @property
    def role(self) -> Role:
        return self.record.spec.project_id, self.record.spec.issue_id, self.record.spec.agent_type

    @property
    def memory_bytes(self) -> int:
        return sum(process.rss_bytes for process in self.tree)

    @property
    def request_bytes(self) -> int:
        """The memory that its spawn request takes. Many short texts take more than their characters."""
        spec = self.record.spec
        texts = (spec.task, *spec.context_requirements, *spec.environment, *spec.environment.values())
        return getsizeof(spec.context_requirements) + getsizeof(spec.environment) + sum(map(_bytes_of, texts))

    def is_visible_to(self, project_id: str | None) -> bool:
        return project_id is None or self.record.spec.project_id == project_id

    def sampled(self, tree: tuple[TreeProcess, ...], *, now: float) -> None:
        """A census saw this tree at monotonic `now`."""
        before = {process.identity: process.cpu_s for process in self.tree}
        elapsed_s = now - self.sampled_at
        if self.sampled_at and elapsed_s > 0:
            used_s = sum(process.cpu_s - before.get(process.identity, 0.0) for process in tree)
            self.cpu_percent = round(100.0 * max(0.0, used_s) / elapsed_s, 1)
        self.tree, self.sampled_at = tree, now

    def forget_process(self) -> None:
        """It has ended."""
        self.process, self.stop_at, self.is_killed, self.exited = None, 0.0, False, None
        self.signalled.clear()
        self.tree, self.sampled_at, self.cpu_percent = (), 0.0, 0.0

    def refuse_started(self, error: SidecarError) -> None:
        for later in self.start_waiters:
            later.refuse(error)
        self.start_waiters.clear()

    def status(self) -> AgentStatus:
        record, spec = self.record, self.record.spec
        is_running = record.state in RUNS
        return AgentStatus(
            agent_id=spec.agent_id,
            agent_type=spec.agent_type,
            issue_id=spec.issue_id,
            project_id=spec.project_id,
            state=record.state,
            process_id=record.process.pid if is_running and record.process is not None else None,
            exit_code=record.exit_code,
            incarnation=record.incarnation,
            restarts=record.restarts,
            cause=record.cause,
            waiting_for=self.waiting_for if record.state in WAITS else None,
            started_at=record.started_at,
            ended_at=record.ended_at,
            uptime_seconds=round(time.monotonic() - record.started_monotonic if is_running else record.ran_for_s, 3),
            cpu_percent=self.cpu_percent,
            memory_mb=round(self.memory_bytes / 2**20, 1),
            task=spec.task,
            last_error=record.last_error,
            requested_by=record.requested_by,
            triggered_by=record.triggered_by,
        )


def _bytes_of(text: str) -> int:
    """The memory of a text that has been encoded once: of one that is not ASCII, Python keeps both forms."""
    if text.isascii():
        return getsizeof(text)
    return getsizeof(f"{text}\0") + len(text.encode("utf-8", "surrogatepass"))
