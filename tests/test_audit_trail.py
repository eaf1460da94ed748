"""Who did what: acts go on record as they are done, and nobody can change the record without being found out."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.app import ROUTES
from sidecar.http.cli.main import main
from sidecar.http.observe.auditing import auditing
from sidecar.state.audit import FOLD_S, MAX_FOLDED, Act, ChainHead, Folding, digest_of, link, verify
from sidecar.state.audit_log import DIRECTORY, AuditLog, verify_files
from sidecar.state.clock import utc_at
from sidecar.state.journal.lines import encode, parse
from tests.fleet import wait_until

NOON = utc_at(1_767_268_800)


def chain(count: int) -> list[bytes]:
    """Records as they lie on the disk."""
    head, raws = ChainHead(), []
    for n in range(count):
        _, raw, head = link(head, Act(act="spawn_agent", by="ada", subject=f"agent-{n}"), now=NOON)
        raws.append(raw)
    return raws


class TestTheChain:
    def test_is_sound_as_it_was_written(self) -> None:
        raws = chain(5)
        verdict = verify(raws)
        assert (verdict.fault, verdict.head) == (None, ChainHead(5, digest_of(raws[-1])))

    def test_of_nothing_is_sound(self) -> None:
        assert verify([]).head == ChainHead()

    @given(st.data())
    def test_shows_a_flipped_bit_wherever_it_is(self, data: st.DataObject) -> None:
        raws = chain(4)
        place = data.draw(st.integers(0, len(raws) - 1))
        at = data.draw(st.integers(0, len(raws[place]) - 1))
        bit = data.draw(st.integers(0, 7))
        altered = bytearray(raws[place])
        altered[at] ^= 1 << bit
        noted = ChainHead(4, digest_of(raws[-1]))
        # A change of the last record alone has no link after it: that is what a noted head is for.
        assert verify([*raws[:place], bytes(altered), *raws[place + 1 :]], noted=noted).fault is not None

    @given(st.integers(0, 4))
    def test_shows_a_removed_record(self, place: int) -> None:
        raws = chain(6)
        verdict = verify(raws[:place] + raws[place + 1 :])
        assert verdict.fault == f"record {place + 2} stands where record {place + 1} should"
        assert verdict.head.seq == place

    @given(st.integers(0, 4))
    def test_shows_two_records_that_changed_places(self, place: int) -> None:
        raws = chain(6)
        raws[place], raws[place + 1] = raws[place + 1], raws[place]
        assert verify(raws).fault is not None

    def test_shows_an_altered_record_with_the_number_of_the_one_after_it(self) -> None:
        raws = chain(3)
        raws[1] = raws[1].replace(b"ada", b"bob")
        assert verify(raws).fault == "record 3 does not follow the one before it, which was altered or replaced"

    def test_shows_a_cut_end_to_who_noted_the_head(self) -> None:
        raws = chain(5)
        noted = verify(raws).head
        assert verify(raws[:3]).fault is None
        assert verify(raws[:3], noted=noted).fault == "it ends with record 3, but record 5 was noted"

    def test_shows_a_chain_written_anew_to_who_noted_the_head(self) -> None:
        noted = verify(chain(2)).head
        head, raws = ChainHead(), []
        for n in range(3):
            _, raw, head = link(head, Act(act="spawn_agent", by="mallory", subject=f"agent-{n}"), now=NOON)
            raws.append(raw)
        assert verify(raws).fault is None
        assert verify(raws, noted=noted).fault == "record 2 is not the one that was noted"

    def test_that_grew_since_is_still_the_one_that_was_noted(self) -> None:
        noted = verify(chain(2)).head
        assert verify(chain(7), noted=noted).fault is None


class TestFolding:
    def refused(self, by: str = "eve") -> Act:
        return Act(act="denied", by=by, outcome="forbidden")

    def test_the_first_is_recorded_at_once_and_the_same_again_is_counted(self) -> None:
        folding = Folding()
        assert folding.add(self.refused(), now=0.0) == [self.refused()]
        for n in range(9):
            assert folding.add(self.refused(), now=1.0 + n) == []
        assert folding.due(now=FOLD_S - 0.1) == []
        (repeated,) = folding.due(now=FOLD_S)
        assert repeated.details == {"repeated": 9}

    def test_one_that_was_not_repeated_is_recorded_once(self) -> None:
        folding = Folding()
        folding.add(self.refused(), now=0.0)
        assert folding.due(now=FOLD_S) == []
        assert folding.add(self.refused(), now=FOLD_S + 1) == [self.refused()]

    def test_what_is_held_at_the_end_is_not_lost(self) -> None:
        folding = Folding()
        for _ in range(3):
            folding.add(self.refused(), now=0.0)
        assert [act.details for act in folding.rest()] == [{"repeated": 2}]

    @given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 30)), max_size=60))
    def test_every_refusal_is_in_the_count(self, tries: list[tuple[int, float]]) -> None:
        folding, now, recorded = Folding(), 0.0, []
        for who, later_s in tries:
            now += later_s
            recorded += folding.add(self.refused(f"eve-{who}"), now=now)
        recorded += folding.rest()
        assert sum(int(act.details.get("repeated") or 1) for act in recorded) == len(tries)

    def test_it_holds_a_bounded_number(self) -> None:
        folding = Folding()
        for n in range(MAX_FOLDED + 10):
            folding.add(self.refused(f"eve-{n}"), now=0.0)
            folding.add(self.refused(f"eve-{n}"), now=0.0)
        assert len(folding.rest()) == MAX_FOLDED


def lines(storage: Path) -> tuple[Path, list[bytes]]:
    (segment,) = (storage / DIRECTORY).glob("seg-*.jsonl")
    return segment, segment.read_bytes().splitlines(keepends=True)


class TestTheTrailOnTheDisk:
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Path:
        """Three acts, by two runs of the server."""
        for run in ([1, 2], [3]):
            trail = AuditLog.open(tmp_path)
            trail.append([Act(act="spawn_agent", by="ada", subject=f"agent-{n}") for n in run], now=NOON)
            trail.close()
        return tmp_path

    def test_goes_on_where_the_last_run_ended(self, storage: Path) -> None:
        verdict = verify_files(storage)
        assert (verdict.fault, verdict.head.seq) == (None, 3)
        trail = AuditLog.open(storage)
        assert [record.subject for record in trail.recent()] == ["agent-1", "agent-2", "agent-3"]
        trail.close()

    def test_is_for_its_owner_alone(self, storage: Path) -> None:
        segment, _ = lines(storage)
        assert segment.stat().st_mode & 0o077 == 0
        assert segment.parent.stat().st_mode & 0o077 == 0

    def test_shows_a_flipped_bit(self, storage: Path) -> None:
        segment, _ = lines(storage)
        whole = bytearray(segment.read_bytes())
        whole[whole.index(b"agent-2")] ^= 1
        segment.write_bytes(bytes(whole))
        assert verify_files(storage).fault is not None

    def test_shows_a_record_altered_by_someone_who_knows_the_format(self, storage: Path) -> None:
        segment, raws = lines(storage)
        place = next(n for n, raw in enumerate(raws) if b"agent-2" in raw)
        line = parse(raws[place])
        assert line is not None
        raws[place] = encode(line.seq, line.synced, line.left, line.record.replace(b"agent-2", b"agent-9"))
        segment.write_bytes(b"".join(raws))
        fault = verify_files(storage).fault
        assert fault == "record 3 does not follow the one before it, which was altered or replaced"

    def test_shows_a_record_removed_by_someone_who_knows_the_format(self, storage: Path) -> None:
        segment, raws = lines(storage)
        kept = [line for raw in raws if (line := parse(raw)) is not None and b"agent-2" not in raw]
        seq, written = 0, []
        for line in kept:
            seq += line.seq > 0
            written.append(encode(seq if line.seq else 0, min(line.synced, seq), 0, line.record))
        segment.write_bytes(b"".join(written))
        assert verify_files(storage).fault == "record 3 stands where record 2 should"

    def test_is_verified_by_the_command_line_without_a_server(self, storage: Path) -> None:
        verified = CliRunner().invoke(main, ["audit", "verify", "--storage", str(storage)])
        assert verified.exit_code == 0
        noted = verified.stdout.strip()
        assert noted.startswith("3:")
        again = CliRunner().invoke(main, ["audit", "verify", "--storage", str(storage), "--noted", noted])
        assert again.exit_code == 0
        wrong = f"2:{noted.partition(':')[2]}"
        refused = CliRunner().invoke(main, ["audit", "verify", "--storage", str(storage), "--noted", wrong])
        assert refused.exit_code == 1
        assert "is not the one that was noted" in refused.stderr
        misspelt = CliRunner().invoke(main, ["audit", "verify", "--storage", str(storage), "--noted", "abc"])
        assert misspelt.exit_code == 2

    def test_that_is_not_there_is_said_to_be_missing(self, tmp_path: Path) -> None:
        verified = CliRunner().invoke(main, ["audit", "verify", "--storage", str(tmp_path)])
        assert verified.exit_code == 1
        assert "no audit trail" in verified.stderr

    def test_takes_acts_from_many_threads_and_loses_none(self, tmp_path: Path) -> None:
        with auditing(tmp_path) as auditor:

            def act(who: int) -> None:
                for n in range(50):
                    auditor.record("spawn_agent", by=f"agent-{who}", number=n)

            threads = [threading.Thread(target=act, args=(who,)) for who in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        verdict = verify_files(tmp_path)
        assert (verdict.fault, verdict.head.seq) == (None, 400)


def records(sidecar: Any, **query: Any) -> list[dict[str, Any]]:
    """Newest first, once everything that was done before has been written."""
    sidecar.sidecar.server.observers.auditor.written(timeout_s=5)
    answer = sidecar.operator.get("/api/audit", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["records"]
    return found


class TestWhatGoesOnRecord:
    def test_an_agents_life_from_the_one_who_asked_for_it_to_its_end(self, sidecar: Any) -> None:
        agent_id = sidecar.spawn("go-specialist")["agent_id"]
        sidecar.wait_for("agent_started", f"agent_id:{agent_id}")
        sidecar.operator.delete(f"/api/agents/{agent_id}")
        sidecar.wait_for("agent_stopped", f"agent_id:{agent_id}")
        found = records(sidecar, subject=agent_id)
        assert {"spawn_agent", "token_minted", "agent_spawned", "agent_started", "agent_exited", "stop_agent"} <= {
            each["act"] for each in found
        }
        by = {each["act"]: each["by"] for each in found}
        assert (by["spawn_agent"], by["stop_agent"], by["agent_started"]) == ("operator", "operator", "sidecar")
        started = next(each for each in found if each["act"] == "agent_started")
        assert started["details"]["process_id"] > 0

    def test_a_spawn_that_was_refused_with_why(self, sidecar: Any) -> None:
        refused = sidecar.operator.post("/api/agents/spawn", json={"agent_type": "sql-specialist", "issue_id": "i"})
        assert refused.status_code == 422
        (record,) = records(sidecar, act="spawn_agent")
        assert (record["outcome"], record["subject"]) == ("no_command", "sql-specialist")

    def test_a_spawn_through_mcp_like_any_other(self, sidecar: Any) -> None:
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "spawn_agent", "arguments": {"agent_type": "python-specialist", "issue_id": "i"}},
        }
        sidecar.client(sidecar.token("chief-architect", "boss")).post("/mcp", json=body)
        (record,) = records(sidecar, act="spawn_agent")
        assert (record["by"], record["outcome"]) == ("boss", "done")

    def test_a_request_without_a_token_and_one_without_the_permission(self, sidecar: Any) -> None:
        sidecar.client().get("/status")
        sidecar.agent().post("/api/agents/spawn", json={"agent_type": "x", "issue_id": "i"})
        permission, token = records(sidecar, act="denied")
        assert (token["outcome"], token["by"], token["subject"]) == ("unauthorized", "", "/status")
        assert (permission["outcome"], permission["by"]) == ("forbidden", "agent-1")
        assert permission["details"] == {"method": "POST", "address": "127.0.0.1"}

    def test_the_same_refusal_a_hundred_times_is_not_a_hundred_records(self, sidecar: Any) -> None:
        for _ in range(20):
            sidecar.client().get("/status")
        assert len(records(sidecar, act="denied")) == 1

    def test_acts_of_operators_and_restarts_of_actors(self, sidecar: Any) -> None:
        sidecar.operator.post("/api/actors/context_builder/restart")
        sidecar.operator.delete("/api/cache/all")
        assert [each["subject"] for each in records(sidecar, act="restart_actor")] == ["context_builder"]
        assert len(records(sidecar, act="clear_all_contexts")) == 1
        (restarted,) = wait_until(lambda: records(sidecar, act="actor_restarted"))  # after it has refused requests
        assert (restarted["by"], restarted["subject"]) == ("sidecar", "context_builder")

    def test_a_refreshed_token(self, sidecar: Any) -> None:
        assert sidecar.agent().post("/api/auth/refresh").status_code == 200
        (record,) = records(sidecar, act="token_minted")
        assert record["subject"] == "agent-1"

    def test_no_token_and_no_payload(self, sidecar: Any) -> None:
        spawned = sidecar.spawn(
            "python-specialist", task="very secret task", environment={"APP_KEY": "very secret value"}
        )
        sidecar.wait_for("agent_exited", f"agent_id:{spawned['agent_id']}")
        sidecar.client("not.a.token").get("/status")
        text = json.dumps(records(sidecar, limit=1000))
        for secret in (spawned["jwt_token"], "very secret", "not.a.token", spawned["jwt_token"].split(".")[2]):
            assert secret not in text

    def test_nothing_that_only_looks(self, sidecar: Any) -> None:
        before = len(records(sidecar, limit=1000))
        sidecar.operator.get("/api/agents")
        sidecar.operator.get("/api/mailboxes")
        assert len(records(sidecar, limit=1000)) == before


class TestReadingIt:
    def test_is_for_operators(self, sidecar: Any) -> None:
        assert sidecar.agent().get("/api/audit").status_code == 403

    def test_pages_backwards(self, sidecar: Any) -> None:
        for _ in range(5):
            sidecar.operator.delete("/api/cache/all")
        newest = records(sidecar, act="clear_all_contexts", limit=2)
        older = records(sidecar, act="clear_all_contexts", limit=2, before=newest[-1]["seq"])
        assert [each["seq"] for each in newest + older] == sorted(
            (each["seq"] for each in newest + older), reverse=True
        )
        assert len({each["seq"] for each in newest + older}) == 4

    def test_the_head_is_the_one_on_the_disk(self, sidecar: Any) -> None:
        records(sidecar)
        head = sidecar.operator.get("/api/audit").json()["head"]
        assert verify_files(sidecar.storage).head == ChainHead(head["seq"], head["digest"])

    def test_each_record_names_the_one_before(self, sidecar: Any) -> None:
        sidecar.spawn("python-specialist")
        found = records(sidecar, limit=1000)[::-1]
        assert [each["seq"] for each in found] == list(range(1, len(found) + 1))
        assert all(len(each["previous"]) == 64 for each in found)

    def test_by_the_command_line(self, sidecar: Any) -> None:
        sidecar.operator.delete("/api/cache/all")
        records(sidecar)
        options = ["--url", sidecar.url, "--token", sidecar.operator_token()]
        listed = CliRunner().invoke(
            main, ["audit", "list", "--act", "clear_all_contexts", "--format", "json", *options]
        )
        assert listed.exit_code == 0, listed.output
        (record,) = msgspec.json.decode(listed.stdout)["records"]
        assert record["by"] == "operator"
        table = CliRunner().invoke(main, ["audit", "list", *options])
        assert "sidecar_started" in table.stdout


def test_the_documentation_names_every_act_of_the_routes() -> None:
    documented = (Path(__file__).parents[1] / "docs" / "audit.md").read_text()
    assert {"spawn_agent", "stop_agent", "restart_agent"} <= {route.name for route in ROUTES if route.is_audited}
    for act in ("denied", "token_minted", "actor_restarted", "sidecar_started", "sidecar_stopping", "agent_lost"):
        assert f"`{act}`" in documented
