"""An event's `issue_id` may be a number: then it is that issue everywhere, or the event is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sidecar.state.events.issue import issue_of, misnames_issue

TRIGGERS = """
[[triggers]]
on = "ready"
spawn = "python-specialist"
"""


@pytest.mark.parametrize(
    ("data", "issue"),
    [
        (b'{"issue_id":"issue-1"}', "issue-1"),
        (b'{"issue_id":42}', "42"),
        (b'{"issue_id":42.0}', "42"),
        (b'{"issue_id":1.5}', "1.5"),
        (b'{"issue_id":-1}', None),
        (b'{"issue_id":1e300}', None),
        (b'{"issue_id":true}', None),
        (b'{"issue_id":null}', None),
        (b'{"issue_id":["a"]}', None),
        (b'{"issue_id":"not an id"}', None),
        (b'{"other":{"issue_id":1}}', None),
        (b"{}", None),
    ],
)
def test_what_is_an_issue(data: bytes, issue: str | None) -> None:
    assert issue_of(msgspec.Raw(data)) == issue


@pytest.mark.parametrize("issue_id", ["-1", "1e300", "1" * 200])
def test_only_a_number_that_is_no_issue_is_refused(issue_id: str) -> None:
    assert misnames_issue(msgspec.json.decode(b'{"issue_id":%b}' % issue_id.encode()))


@pytest.mark.parametrize("issue_id", [b"42", b'"a b"', b"null", b"true", b"[1]", b"{}"])
def test_others_are_the_publishers_own_affair(issue_id: bytes) -> None:
    assert not misnames_issue(msgspec.json.decode(b'{"issue_id":%b}' % issue_id))


def test_a_number_fires_the_trigger_that_its_filter_matches(start_sidecar: Any) -> None:
    sidecar = start_sidecar(TRIGGERS)
    assert sidecar.operator.post("/api/events/ready", json={"data": {"issue_id": 42}}).status_code == 202
    spawned = sidecar.wait_for("agent_spawned", "issue_id:42")
    assert spawned["data"]["issue_id"] == "42"
    refused = sidecar.operator.post("/api/events/ready", json={"data": {"issue_id": -1}})
    assert (refused.status_code, refused.json()["code"]) == (400, "EVT_002")
    assert refused.json()["details"]["field"] == "data.issue_id"
