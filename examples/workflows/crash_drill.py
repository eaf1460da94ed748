"""Crash drill: kill -9 of an agent, twice, and of the sidecar itself, amid work; nothing is lost or done twice.

    python -m sidecar.examples.workflows.crash_drill

Why it holds: an event that was not acknowledged is given again, a result with the same key is stored once, and the
sidecar finds the agents that outlived it.
"""

from __future__ import annotations

import os
import signal
import time

from sidecar.examples.demo.project import PROJECT_ID
from sidecar.examples.workflows.stage import ISSUE_ID, Stage, play, stage
from sidecar.http.sdk import Agent

JOBS = 12


def worker(agent: Agent) -> None:
    """Counts primes, job by job, until all jobs have a result."""
    for job in agent.events("job_requested", filter=f"issue_id:{agent.issue_id}", limit=2):
        number, below = job.data["number"], job.data["below"]
        agent.store(status="success", metrics={"job": number, "primes": primes_below(below)}, key=f"job-{number}")
        if number == JOBS - 1:
            break
    agent.publish("jobs_done", {"jobs": JOBS}, topic="coordination", key="jobs-done")


def primes_below(end: int) -> int:
    """How many there are, by the sieve of Eratosthenes."""
    is_prime = bytearray([1]) * end
    is_prime[:2] = b"\0\0"
    for n in range(2, int(end**0.5) + 1):
        if is_prime[n]:
            is_prime[n * n :: n] = bytes(len(range(n * n, end, n)))
    return sum(is_prime)


def direct() -> None:
    with stage(__file__, ["python-specialist"], settings='[events]\ndurability = "commit"\n') as on:
        for number in range(JOBS):
            data = {"issue_id": ISSUE_ID, "number": number, "below": 300_000 + 10_000 * number}
            on.client.publish("job_requested", data, project_id=PROJECT_ID)
        agent_id = on.spawn("python-specialist", task=f"{JOBS} jobs")
        drills = {3: kill_agent, 6: kill_sidecar, 9: kill_agent}
        for heard, event in enumerate(on.events("result_stored", "jobs_done"), start=1):
            if event.event_type == "jobs_done":
                break
            if heard in drills:
                drills[heard](on, agent_id)
        results = on.client.results(issue_id=ISSUE_ID, project_id=PROJECT_ID).results
        jobs = sorted(result.result["metrics"]["job"] for result in results)
        status = on.client.agent(agent_id)
        print(f"\n{JOBS} jobs, {len(results)} results, incarnation {status.incarnation} of {agent_id}.")
        if jobs != list(range(JOBS)):
            raise SystemExit(f"lost or done twice: {jobs}")
        print("Every job has exactly one result.")


def kill_agent(on: Stage, agent_id: str) -> None:
    process_id = on.client.agent(agent_id).process_id
    if process_id is not None:
        print(f"{'':12} kill -9 {process_id}  (the agent)", flush=True)
        os.kill(process_id, signal.SIGKILL)


def kill_sidecar(on: Stage, agent_id: str) -> None:
    print(f"{'':12} kill -9 {on.server.pid}  (the sidecar)", flush=True)
    began = time.monotonic()
    on.kill_and_restart_the_sidecar()
    state = on.client.agent(agent_id).state
    print(f"{'':12} it listens again after {(time.monotonic() - began) * 1000:.0f} ms; the agent: {state}", flush=True)


if __name__ == "__main__":
    play({"python-specialist": worker}, direct)
