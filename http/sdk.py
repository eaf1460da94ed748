"""The Python client. In an agent:

    from sidecar.http.sdk import Agent

    with Agent() as agent:
        context = agent.context()
        agent.store({"status": "success", "files_created": ["src/api.py"]})
        agent.publish("implementation_complete", {"status": "success"})

`Agent` takes who it is from the environment the sidecar gave it; `Client` is for operators and tools.
"""

from __future__ import annotations

from .client.agent import HEARTBEAT_S, Agent
from .client.client import Client
from .client.errors import NoServer, Superseded, UnexpectedAnswer
from .client.records import Batch, Context, File, Gap, Published, Result, ResultPage, Spawned, Stored
from .client.records import ReceivedEvent as Event
from .client.retry import ONE_ATTEMPT, RetryPolicy
from .client.subscription import Subscription

__all__ = [
    "HEARTBEAT_S",
    "ONE_ATTEMPT",
    "Agent",
    "Batch",
    "Client",
    "Context",
    "Event",
    "File",
    "Gap",
    "NoServer",
    "Published",
    "Result",
    "ResultPage",
    "RetryPolicy",
    "Spawned",
    "Stored",
    "Subscription",
    "Superseded",
    "UnexpectedAnswer",
]
