"""SpawnRequests: creates an agent for a spawn request, once per idempotency key, and answers the request.

Used in the Spawner's thread.
"""

from __future__ import annotations

import hashlib
import logging

import msgspec

from ...state.agent_entries import AgentRecord, FirstAnswer
from ...state.agent_registry import AgentRegistry
from ...state.clock import utc_now
from ...state.errors import IdempotencyConflict, NoCommand, SpawnFailed, Unavailable
from ...state.ids import unique_hex
from ...state.models import AgentId, AgentSpec, ExitCause, identifier
from ...state.projects import Projects
from ...state.trace import new_traceparent
from ...supervision.profile import Profiles
from ...supervision.request_environment import check_environment, check_text
from ..messages import SpawnAgent
from ..replies import SpawnedAgent
from .agent import SupervisedAgent
from .chains import Chains
from .queue import AgentQueue
from .records import AgentRecords, token_ref
from .supervisor import AgentSupervisor
from .tokens import AgentTokens

log = logging.getLogger(__name__)


class SpawnRequests:
    """Turns spawn requests into agents and answers."""

    def __init__(
        self,
        *,
        registry: AgentRegistry,
        projects: Projects,
        profiles: Profiles,
        tokens: AgentTokens,
        records: AgentRecords,
        queue: AgentQueue,
        supervisor: AgentSupervisor,
        chains: Chains,
    ) -> None:
        self._registry = registry
        self._projects = projects
        self._profiles = profiles
        self._tokens = tokens
        self._records = records
        self._queue = queue
        self._supervisor = supervisor
        self._chains = chains

    def spawn(self, request: SpawnAgent) -> SpawnedAgent:
        """Start or queue a new agent; repeat the first answer for a request with the same idempotency key.

        Raises InvalidRequest, NoCommand, SpawnFailed, IdempotencyConflict, ChainTooLong, TooManySpawns, QueueFull,
        StorageUnavailable, and Unavailable while the sidecar shuts down.
        """
        digest = _digest(request)
        if (earlier := self._spawned_before(request, digest)) is not None:
            return self._answer_again(earlier)
        if self._queue.is_closed:
            raise Unavailable("the sidecar is shutting down and starts no agents")
        spec = self._spec(request)
        profile = self._profiles.of(spec.agent_type)
        if not profile.command:
            raise NoCommand(
                f"agent type {spec.agent_type} has no command: its profile sets none",
                field="agent_type",
                expected=f"a `command` in [profiles.{spec.agent_type}] of sidecar.toml",
            )
        self._chains.check(spec)
        record = AgentRecord(
            spec=spec,
            serial=self._registry.next_serial(),
            requested_by=request.requested_by,
            idempotency_key=request.idempotency_key,
            request_digest=digest,
            created_at=utc_now(),
        )
        agent = SupervisedAgent(record, profile)
        self._supervisor.enter(agent)
        log.info(
            "agent spawned agent_id=%s agent_type=%s issue_id=%s requested_by=%s state=%s",
            agent.id,
            spec.agent_type,
            spec.issue_id,
            request.requested_by,
            agent.record.state,
        )
        answer = self._answer(agent)
        if request.idempotency_key is not None:
            self._remember(agent, answer)
        return answer

    def _spec(self, request: SpawnAgent) -> AgentSpec:
        """The spec of the agent that a request asks for. Raises InvalidRequest."""
        identifier(request.issue_id, "issue_id")
        identifier(request.project_id, "project_id")
        check_text(request.task, "task")
        # An identifier has at most 128 characters, and the random part of the id must fit.
        kind = identifier(request.agent_type, "agent_type")[:118]
        allowed = self._profiles.of(request.agent_type).request_env
        check_environment(request.environment, allowed, agent_type=request.agent_type)
        self._projects.root_of(request.project_id)
        return AgentSpec(
            agent_id=AgentId(f"{kind}-{unique_hex(8)}"),
            agent_type=request.agent_type,
            issue_id=request.issue_id,
            project_id=request.project_id,
            task=request.task,
            context_requirements=request.context_requirements,
            environment=dict(request.environment),
            priority=request.priority,
            traceparent=request.traceparent or new_traceparent(),
            chain=request.caused_by or self._chains.of_agent(request.requested_by),
        )

    def _spawned_before(self, request: SpawnAgent, digest: str) -> AgentRecord | None:
        """The agent that an earlier request with this idempotency key spawned. Raises IdempotencyConflict."""
        if request.idempotency_key is None:
            return None
        record = self._registry.spawned_with((request.project_id, request.requested_by, request.idempotency_key))
        if record is not None and record.request_digest != digest:
            raise IdempotencyConflict(f"idempotency key {request.idempotency_key} spawned another agent")
        return record

    def _answer(self, agent: SupervisedAgent) -> SpawnedAgent:
        """The answer to a spawn request, with the agent's present state."""
        record = agent.record
        if record.incarnation == 1 and record.cause is ExitCause.START_FAILED:
            raise SpawnFailed(f"agent {agent.id} could not be started: {record.last_error}", agent_id=agent.id)
        token = agent.token
        if token is None and record.tokens:  # minted by a sidecar that died before it could answer
            token = self._tokens.remint(record.spec, agent.profile, record.tokens[-1])
        return SpawnedAgent(agent.status(), utc_now(), token, context_injected=record.incarnation > 0)

    def _remember(self, agent: SupervisedAgent, answer: SpawnedAgent) -> None:
        """Keep the first answer for repeats of the request."""
        state, process_id = answer.status.state, answer.status.process_id
        token = token_ref(answer.token) if answer.token is not None else None
        first = FirstAnswer(state=state, process_id=process_id, token=token, at=answer.at)
        self._records.remember(agent, first_answer=first)

    def _answer_again(self, record: AgentRecord) -> SpawnedAgent:
        """The first answer to its spawn request."""
        agent_id, first = record.spec.agent_id, record.first_answer
        agent = self._records.index.agents.get(agent_id) or SupervisedAgent(
            record, self._profiles.of(record.spec.agent_type)
        )
        if first is None:
            return self._answer(agent)
        status = msgspec.structs.replace(agent.status(), state=first.state, process_id=first.process_id)
        token = self._tokens.remint(record.spec, agent.profile, first.token) if first.token is not None else None
        return SpawnedAgent(status, first.at, token, context_injected=token is not None)


def _digest(request: SpawnAgent) -> str:
    """A digest that is equal for requests with the same content, in any trace."""
    left_out = ("idempotency_key", "traceparent", "caused_by")
    body = {name: value for name, value in msgspec.structs.asdict(request).items() if name not in left_out}
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()
