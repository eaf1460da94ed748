"""Launcher: starts an incarnation's process, in the Spawner's thread or, right after a death, in the exit watcher's."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import msgspec

from ...state.agent_entries import AgentRecord, TokenRef
from ...state.agent_registry import AgentRegistry
from ...state.clock import utc_now
from ...state.errors import NotFound, SpawnFailed
from ...state.identity import Token
from ...state.models import AgentId, AgentSpec, AgentState
from ...state.projects import Projects
from ...supervision import process_table
from ...supervision.after_exit import death_of
from ...supervision.agent_logs import AgentLogs
from ...supervision.launch import launch_of
from ...supervision.process import LogFiles, Prepared, StartedProcess
from ...supervision.process_exit import ExitStatus
from ...supervision.process_identity import age_s
from ...supervision.process_tree import TreeProcess
from ...supervision.profile import Profile, Profiles
from ...supervision.request_environment import AGENT_ID, TOKEN
from ...supervision.restart import Decision, RestartHistory, RestartPolicy, RestartVerdict
from ...supervision.steps import RestartAttempt, StartedIncarnation
from .tokens import AgentTokens

log = logging.getLogger(__name__)

UNKNOWN = AgentId("unknown")  # the requester of an agent without any record
_TOKEN_FRESH_S = 300.0  # of the hour it is good for


class Launcher:
    """Holds only what does not change, so any thread may use it."""

    def __init__(
        self,
        *,
        projects: Projects,
        tokens: AgentTokens,
        logs: AgentLogs,
        instance_id: str,
        api_url: str,
        base_env: Mapping[str, str],
    ) -> None:
        self._projects = projects
        self._tokens = tokens
        self._logs = logs
        self._instance_id = instance_id
        self._api_url = api_url
        self._base_env = dict(base_env)
        self._chance: Callable[[], float] = random.Random().random

    def mint(self, record: AgentRecord, profile: Profile) -> Token:
        return self._tokens.mint(record.spec, profile, now=utc_now())

    def start(self, record: AgentRecord, profile: Profile, token: Token) -> StartedIncarnation:
        """The process of the incarnation that `record` names. Raises SpawnFailed."""
        logs = self.open_logs(record)
        try:
            prepared = self.prepare(record, profile, token, logs)
            log_starts = logs.ends()
            return StartedIncarnation(prepared.start(), token, log_starts, time.monotonic())
        finally:
            logs.close()

    def recover_started(self, record: AgentRecord, profile: Profile, process: StartedProcess) -> StartedIncarnation:
        """The start that a sidecar had made when it died, before it could record it."""
        environment = process_table.variables(process_table.environ(process.identity.pid))
        text = environment.get(TOKEN.encode(), b"").decode("ascii", "replace")
        token = self._tokens.found(record.spec, text, now=utc_now())
        if token is None:
            log.warning("no good token found with an adopted process agent_id=%s", record.spec.agent_id)
            token = self.mint(record, profile)  # which nobody has
        # Where its output begins nobody has seen: not before that of the one before it.
        return StartedIncarnation(process, token, record.log_starts, time.monotonic() - age_s(process.identity))

    def is_log_deleted(self, record: AgentRecord) -> bool:
        return self._logs.take_deleted(record.serial)

    def record_of_lost(
        self, leader: TreeProcess, profiles: Profiles, registry: AgentRegistry, logs: AgentLogs
    ) -> AgentRecord | None:
        """A new record of an agent of which only this process is left; None if the process cannot prove whose it is.

        Its environment alone proves nothing, but its token does: we signed it, and it names the agent. It is refused
        if the agent has ended.
        """
        pid, now = leader.identity.pid, utc_now()
        environment = process_table.variables(process_table.environ(pid))
        caller = self._tokens.caller(environment.get(TOKEN.encode(), b"").decode("ascii", "replace"), now=now)
        if caller is None or caller.agent_id.encode() != environment.get(AGENT_ID.encode()) or caller.issue_id is None:
            return None
        if not profiles.of(caller.agent_type).command:
            return None
        return AgentRecord(
            spec=AgentSpec(
                agent_id=caller.agent_id,
                agent_type=caller.agent_type,
                issue_id=caller.issue_id,
                project_id=caller.project_id,
                task=environment.get(b"AGENT_TASK", b"").decode("utf-8", "replace"),
            ),
            serial=logs.serial_of(pid) or registry.next_serial(),
            requested_by=UNKNOWN,
            created_at=now - timedelta(seconds=age_s(leader.identity)),
            state=AgentState.STARTING,
            incarnation=leader.incarnation,
            tokens=(TokenRef(caller.token_id, caller.expires_at),),
        )

    def open_logs(self, record: AgentRecord) -> LogFiles:
        return LogFiles(self._logs.path(record.serial, "stdout"), self._logs.path(record.serial, "stderr"))

    def prepare(self, record: AgentRecord, profile: Profile, token: Token, logs: LogFiles) -> Prepared:
        """Raises SpawnFailed."""
        if not profile.command:
            raise SpawnFailed(f"the profile of {profile.agent_type} has no command any more")
        try:
            project_root = self._projects.root_of(record.spec.project_id)
        except NotFound as error:
            raise SpawnFailed(error.message) from error
        launch = launch_of(
            record.spec,
            profile,
            incarnation=record.incarnation,
            instance_id=self._instance_id,
            base=self._base_env,
            token=token.text,
            api_url=self._api_url,
            project_root=project_root,
        )
        return Prepared(launch, logs)

    def decide(self, record: AgentRecord, policy: RestartPolicy, status: ExitStatus | None, *, at: float) -> Decision:
        """Decide what follows the death, at monotonic time `at`, of the incarnation that `record` names.

        status: None if the incarnation could not be started.
        """
        history = RestartHistory(record.deaths, record.in_a_row, record.is_open)
        return policy.decide(history, death_of(record, status, at=at), now=at, chance=self._chance())

    def prepare_restart(self, record: AgentRecord, profile: Profile) -> AgentRestart | None:
        """The restart, by the exit watcher, of the incarnation that `record` names; None if it cannot be prepared."""
        try:
            return AgentRestart(self, record, profile)
        except SpawnFailed as error:
            log.warning("restart at once not prepared agent_id=%s: %s", record.spec.agent_id, error.message)
            return None


class AgentRestart:
    """All that a restart at once needs, made before it is needed. A token that has become old is made again."""

    def __init__(self, launcher: Launcher, record: AgentRecord, profile: Profile) -> None:
        """Raises SpawnFailed."""
        self._launcher = launcher
        self._record = record
        self._next = msgspec.structs.replace(record, incarnation=record.incarnation + 1)
        self._profile = profile
        self._policy = profile.restart_policy
        self._logs = launcher.open_logs(record)
        try:
            self._prepare()
        except SpawnFailed:
            self._logs.close()
            raise

    def _prepare(self) -> None:
        self._token = self._launcher.mint(self._next, self._profile)
        self._prepared = self._launcher.prepare(self._next, self._profile, self._token, self._logs)
        self._made_at = time.monotonic()

    def restart(self, status: ExitStatus, at: float) -> RestartAttempt:
        decision = self._launcher.decide(self._record, self._policy, status, at=at)
        if decision.verdict is not RestartVerdict.RESTART or decision.delay_s > 0:
            return RestartAttempt(decision=decision)
        try:
            if self._launcher.is_log_deleted(self._record):
                self._logs.close()
                self._logs = self._launcher.open_logs(self._record)
                self._prepare()
            elif at - self._made_at > _TOKEN_FRESH_S:
                self._prepare()
            log_starts = self._logs.ends()
            process = self._prepared.start(at_once=True)
            started = StartedIncarnation(process, self._token, log_starts, time.monotonic())
            return RestartAttempt(decision=decision, started=started)
        except SpawnFailed as error:
            return RestartAttempt(decision=decision, error=error.message)

    def close(self) -> None:
        self._logs.close()
