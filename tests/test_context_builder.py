"""The ContextBuilder answers from its cache while that is true, never waits, and needs nobody else to be there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from sidecar.actors.context.build_inputs import BuildInputs
from sidecar.actors.context.requirements import FilePatterns
from sidecar.actors.messages import BuildContext, ClearContext, CountContexts
from sidecar.actors.runtime.asking import Later, R, Request, ask
from sidecar.state.clock import utc_now
from sidecar.state.errors import InvalidContextRequest, NotFound
from sidecar.state.models import AgentId, AgentSpec, Event, EventId
from sidecar.state.projects import Projects
from sidecar.supervision.profile import Profiles
from tests.context_world import Contexts, Neighbours, commit, contexts, git, repository, write
from tests.test_context_by_agent_type import stored


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path / "project", {"a.py": "a = 1\n", "b.py": "b = 1\n", "README.md": "# Project\n"})


@pytest.fixture(params=[True, False], ids=["watched", "unwatched"])
def builder(request: pytest.FixtureRequest, root: Path) -> Iterator[Contexts]:
    with contexts(Projects(root), watch=request.param) as made:
        yield made


def eventually(holds: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Whether it comes to hold; asked again and again, with a pause that a busy machine can afford."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.02)
    return True


def test_an_unchanged_project_is_answered_from_the_cache(builder: Contexts) -> None:
    first, second = builder.answer(), builder.answer()
    assert (first["cache_hit"], second["cache_hit"]) == (False, True)
    assert {**first, "cache_hit": 0, "timestamp": 0} == {**second, "cache_hit": 0, "timestamp": 0}


def test_a_tag_that_still_names_the_context_spares_the_body(builder: Contexts) -> None:
    etag = builder.get().etag
    assert etag.startswith('W/"')
    for header in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        assert builder.get(if_none_match=header).body is None
    assert builder.get(if_none_match='W/"other"').body is not None


def test_a_changed_file_is_noticed_at_once(builder: Contexts, root: Path) -> None:
    etag = builder.get().etag
    for n in range(5):
        write(root, {"a.py": f"a = {n + 2}\n"})  # of the same size each time
        bundle = builder.get(if_none_match=etag)
        assert bundle.body is not None
        assert f"a = {n + 2}".encode() in bundle.body
        etag = bundle.etag


def test_a_new_a_deleted_and_a_committed_file_are_noticed(builder: Contexts, root: Path) -> None:
    def files() -> set[str]:
        return {file["path"] for file in builder.answer()["context"]["relevant_files"]}

    assert files() == {"a.py", "b.py", "README.md"}
    write(root, {"new.py": "new = 1\n"})
    assert eventually(lambda: "new.py" in files(), 1.0)
    (root / "b.py").unlink()
    assert "b.py" not in files()
    commit(root, {}, "Take stock")
    git_context = builder.answer()["context"]["git_context"]
    assert (git_context["recent_commits"][0]["message"], git_context["uncommitted_changes"]) == ("Take stock", [])
    git(root, "checkout", "-q", "-b", "side")
    assert builder.answer()["context"]["git_context"]["branch"] == "side"


def test_refresh_builds_anew(builder: Contexts) -> None:
    builder.get()
    assert builder.answer(refresh=True)["cache_hit"] is False


def test_a_folder_that_becomes_a_repository_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "a = 1\n"})
    with contexts(Projects(tmp_path)) as builder:
        assert builder.answer()["context"]["git_context"]["branch"] is None
        repository(tmp_path, {})
        assert builder.answer()["context"]["git_context"]["branch"] == "main"


def test_results_that_come_in_are_in_the_next_context(builder: Contexts) -> None:
    assert builder.answer()["context"]["previous_agent_outputs"] == []
    builder.neighbours.results = (stored({"decisions": ["Keep it small"], "files_modified": ["b.py"]}),)
    answer = builder.answer()
    assert answer["cache_hit"] is False
    assert answer["context"]["previous_agent_outputs"][0]["decision"] == "Keep it small"
    assert answer["context"]["relevant_files"][0]["path"] == "b.py"
    assert answer["query"] == {"from": "results", "text": "Keep it small"}


def test_the_task_orders_the_files_and_q_comes_before_it(builder: Contexts, root: Path) -> None:
    write(root, {"tax.py": "def vat():\n    pass\n", "mail.py": "def letter():\n    pass\n"})
    builder.neighbours.specs["agent-1"] = AgentSpec(
        agent_id=AgentId("agent-1"),
        agent_type="python-specialist",
        issue_id="issue-1",
        project_id="default",
        task="Letters are lost",
        context_requirements=("documentation", "horoscopes"),
    )
    answer = builder.answer(refresh=True)
    assert (answer["context"]["relevant_files"][0]["path"], answer["query"]["from"]) == ("mail.py", "task")
    assert answer["warnings"] == ["context_requirements: 'horoscopes' is not known"]
    asked = builder.answer(query="The vat is wrong")
    assert (asked["context"]["relevant_files"][0]["path"], asked["query"]["from"]) == ("tax.py", "q")


def test_what_events_of_the_issue_say_is_the_task_when_nobody_told_one(builder: Contexts, root: Path) -> None:
    write(root, {"tax.py": "def vat():\n    pass\n", "mail.py": "def letter():\n    pass\n"})
    builder.neighbours.events = (
        Event(
            event_id=EventId("evt-1"),
            project_id="default",
            event_type="error_encountered",
            publisher="ada",
            publisher_type="test-engineer",
            topic="error",
            data=msgspec.Raw(b'{"issue_id": "issue-1", "error": "the letter was lost"}'),
            correlation_id=None,
            priority="normal",
            ttl_s=60,
            published_at=utc_now(),
        ),
    )
    answer = builder.answer(refresh=True)
    assert answer["query"] == {"from": "events", "text": "the letter was lost"}
    assert answer["context"]["relevant_files"][0]["path"] == "mail.py"


def test_a_task_of_another_project_is_not_told(builder: Contexts) -> None:
    builder.neighbours.specs["agent-1"] = AgentSpec(
        agent_id=AgentId("agent-1"), agent_type="x", issue_id="i", project_id="other", task="Their secret plan"
    )
    assert builder.answer()["query"]["from"] == "changes"


def test_contexts_are_built_when_no_other_actor_answers(builder: Contexts) -> None:
    builder.neighbours.silent = True
    answer = builder.answer()
    assert answer["context"]["relevant_files"]
    assert len(answer["warnings"]) == 3
    assert all("nobody is there" in warning for warning in answer["warnings"])


def test_bad_requests_are_refused_before_anything_is_built(builder: Contexts) -> None:
    for changes, field in (
        ({"requirements": ("everything",)}, "requirements"),
        ({"files": ("../x",)}, "files"),
        ({"max_bytes": 10}, "max_bytes"),
    ):
        with pytest.raises(InvalidContextRequest) as caught:
            builder.get(**changes)
        assert caught.value.details["field"] == field
        assert caught.value.details["expected"]


def test_caches_are_counted_and_cleared_by_issue_and_project(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", {"o.py": "o = 1\n"})
    with contexts(Projects(root, {"default": root, "other": tmp_path / "other"})) as builder:
        builder.get(issue_id="one")
        builder.get(issue_id="two")
        builder.get(issue_id="one", project_id="other")
        assert builder.answer(issue_id="one")["cache_hit"]

        def count(project_id: str | None) -> int:
            return ask(builder.handle, CountContexts(project_id=project_id), timeout_s=5).cache_entries

        assert (count(None), count("default"), count("other")) == (3, 2, 1)
        assert ask(builder.handle, CountContexts(project_id=None), timeout_s=5).cache_hit_rate == 0.25
        cleared = ask(builder.handle, ClearContext(project_id="default", issue_id="one"), timeout_s=5)
        assert cleared.entries_removed == 1
        assert cleared.bytes_freed > 0
        assert not builder.answer(issue_id="one")["cache_hit"]
        assert ask(builder.handle, ClearContext(project_id=None, issue_id=None), timeout_s=5).entries_removed == 3
        with pytest.raises(NotFound):
            builder.get(project_id="third")


def test_the_cache_stays_within_its_bounds(root: Path) -> None:
    write(root, {f"part_{n}.py": "x = 1\n" * 20_000 for n in range(3)})
    with contexts(Projects(root), cache_mb=2) as builder:
        for n in range(8):
            builder.get(issue_id=f"issue-{n}")
            numbers = ask(builder.handle, CountContexts(project_id=None), timeout_s=5)
            assert numbers.cache_bytes <= 1 << 20
        assert numbers.cache_entries < 8


def test_a_build_that_takes_long_does_not_keep_the_actor_from_answering(root: Path) -> None:
    os.mkfifo(root / ".gitignore")  # git waits for whoever writes it
    with contexts(Projects(root)) as builder:
        slow = builder.handle.request(
            BuildContext(issue_id="i", agent_type="x", agent_id=AgentId("a"), project_id="default")
        )
        assert ask(builder.handle, CountContexts(project_id=None), timeout_s=1.0).cache_entries == 0
        slow.cancel()
        with (root / ".gitignore").open("w"):
            pass


def test_many_agents_at_once_all_get_the_same(builder: Contexts) -> None:
    etags: list[str] = []
    threads = [threading.Thread(target=lambda: etags.append(builder.get().etag)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(etags), len(set(etags))) == (16, 1)


def test_a_folder_that_is_gone_is_an_error_that_names_no_path(root: Path) -> None:
    import shutil

    from sidecar.state.errors import ContextFailed

    with contexts(Projects(root), watch=False) as builder:
        builder.get()
        shutil.rmtree(root)
        with pytest.raises(ContextFailed) as caught:
            builder.get(refresh=True)
        assert str(root) not in caught.value.message


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five thousand files."""
    body = "".join(f"def step_{n}(value):\n    return value + {n}\n\n\n" for n in range(10))
    files = {f"src/area_{n % 50}/part_{n}.py": f"# Part {n}\n{body}" for n in range(4999)}
    files["src/area_7/zeppelin.py"] = f"def inflate():\n    '''Fills the airship.'''\n\n\n{body}"
    return repository(tmp_path_factory.mktemp("large") / "project", files)


def indexers() -> set[psutil.Process]:
    """The indexing processes of this process; those of earlier tests may still be ending."""
    return {child for child in psutil.Process().children() if any("indexer" in word for word in child.cmdline())}


def test_a_large_project_is_indexed_in_a_process_of_its_own_that_may_die(large: Path) -> None:
    query = "The airship is not filled"
    of_others = indexers()
    with contexts(Projects(large)) as builder:
        answer = builder.answer(query=query, max_bytes=65_536)
        assert answer["index"] in ("warming", "ready")
        assert answer["context"]["relevant_files"]

        def is_ready() -> bool:
            return bool(builder.answer(query=query, max_bytes=65_536)["index"] == "ready")

        assert eventually(is_ready, 60.0)
        answer = builder.answer(query=query, max_bytes=65_536)
        assert answer["context"]["relevant_files"][0]["path"] == "src/area_7/zeppelin.py"
        assert answer["cache_hit"]
        (indexer,) = indexers() - of_others
        indexer.kill()
        assert builder.answer(query=query, max_bytes=65_536)["cache_hit"]
        assert builder.answer(query="fill the airship", max_bytes=65_536)["context"]["relevant_files"]
    assert eventually(lambda: not indexer.is_running())


def test_the_indexing_process_ends_with_the_sidecar(large: Path) -> None:
    code = (
        "import sys; from sidecar.actors.context.index.client import IndexClient\n"
        "from sidecar.actors.context.index.messages import Know\n"
        f"index = IndexClient(); index.know(Know({str(large)!r}, [], None, 1000), '1')\n"
        "print(index.process_id(), flush=True); sys.stdin.read(); import os; os._exit(1)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    indexer = psutil.Process(int(parent.stdout.readline()))
    parent.communicate(timeout=10)
    assert eventually(lambda: not indexer.is_running() or indexer.status() == psutil.STATUS_ZOMBIE)


def test_a_project_whose_contexts_take_long_holds_up_no_other(root: Path, tmp_path: Path) -> None:
    """Its builds take turns, and those that wait for theirs once held every thread."""
    other = repository(tmp_path / "other", {"b.py": "b = 1\n"})
    with contexts(Projects(root, {"slow": root, "other": other})) as builder:
        builder.get(project_id="slow")
        pipe = root / ".gitignore"
        os.mkfifo(pipe)  # git waits for who writes into it
        (root / "new.py").write_text("n = 1\n")
        asked = [
            threading.Thread(target=builder.get, kwargs={"project_id": "slow", "issue_id": f"issue-{n}"}, daemon=True)
            for n in range(6)
        ]
        for one in asked:
            one.start()
        began = time.monotonic()
        answer = builder.answer(project_id="other", issue_id="issue-9")
        took = time.monotonic() - began
        is_held_up = any(one.is_alive() for one in asked)
        os.close(os.open(pipe, os.O_RDWR))  # git reads on
        pipe.unlink()
        assert [file["path"] for file in answer["context"]["relevant_files"]] == ["b.py"]
        assert took < 15
        assert is_held_up
        for one in asked:
            one.join(30)


class _TogetherOnly(Neighbours):
    """Answers nothing before three questions wait for an answer."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[Request[Any], Later[Any]]] = []

    def request(self, request: Request[R]) -> Later[R]:
        later: Later[R] = Later()
        self._waiting.append((request, later))
        if len(self._waiting) == 3:
            for asked, waits in self._waiting:
                waits.answer(super().request(asked).result())
        return later


def test_the_other_actors_are_asked_at_once() -> None:
    asked = BuildContext(
        issue_id="issue-1", agent_type="python-specialist", agent_id=AgentId("agent-1"), project_id="default"
    )
    together = _TogetherOnly()
    inputs = BuildInputs(together, together, together)
    made = inputs.of(asked, frozenset(), FilePatterns(()), 10_000, Profiles({}))
    assert made.warnings == ()
