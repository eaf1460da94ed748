"""Standard topics, and the one an event type belongs to when its publisher names none. Source: the guide's table."""

from __future__ import annotations

ARCHITECTURE = "architecture"
IMPLEMENTATION = "implementation"
TESTING = "testing"
SECURITY = "security"
DEPLOYMENT = "deployment"
DOCUMENTATION = "documentation"
ERROR = "error"
COORDINATION = "coordination"
SYSTEM = "system"

STANDARD = (
    ARCHITECTURE,
    IMPLEMENTATION,
    TESTING,
    SECURITY,
    DEPLOYMENT,
    DOCUMENTATION,
    ERROR,
    COORDINATION,
    SYSTEM,
)

_TOPIC_OF_TYPE = {
    "architecture_defined": ARCHITECTURE,
    "architecture_changed": ARCHITECTURE,
    "implementation_started": IMPLEMENTATION,
    "implementation_complete": IMPLEMENTATION,
    "testing_complete": TESTING,
    "tests_written": TESTING,
    "tests_passed": TESTING,
    "tests_failed": TESTING,
    "security_audit_complete": SECURITY,
    "security_finding": SECURITY,
    "deployment": DEPLOYMENT,
    "deployment_complete": DEPLOYMENT,
    "deployment_failed": DEPLOYMENT,
    "documentation_complete": DOCUMENTATION,
    "documentation_updated": DOCUMENTATION,
    "error_encountered": ERROR,
    "agent_failed": ERROR,
    "chain_cut": ERROR,
    "agent_queued": SYSTEM,
    "agent_blocked": SYSTEM,
    "agent_spawned": SYSTEM,
    "agent_started": SYSTEM,
    "agent_exited": SYSTEM,
    "agent_restarting": SYSTEM,
    "agent_stopped": SYSTEM,
    "agent_adopted": SYSTEM,
    "agent_lost": SYSTEM,
    "agent_shutdown": SYSTEM,
}


# Only the sidecar publishes these, so readers can rely on them. `agent_completed` and `agent_shutdown` are not among
# them: agents publish those.
OF_THE_SIDECAR = frozenset(
    {
        "agent_adopted",
        "agent_blocked",
        "agent_exited",
        "agent_failed",
        "agent_lost",
        "agent_queued",
        "agent_restarting",
        "agent_spawned",
        "agent_started",
        "agent_stopped",
        "chain_cut",
        "result_stored",
    }
)


def standard_topic(event_type: str) -> str:
    """The topic of an event whose publisher names none."""
    return _TOPIC_OF_TYPE.get(event_type, COORDINATION)
