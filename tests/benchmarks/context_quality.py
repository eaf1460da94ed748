"""How many of the files that a change needed are in the context that was built for it, on real commits.

Each query is a commit message without the paths in it; the work tree is the commit's parent, and history ends there.
Queries: JSON as `{"repos": [{"repo", "language", "items": [{"parent", "query", "gold", "hunks"}]}]}`, where `hunks`
are the old lines that the commit changed, `[first line, lines]`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.actors.context.audience import audience_of
from sidecar.actors.context.build import build
from sidecar.actors.context.build_request import BuildRequest
from sidecar.actors.context.earlier import Earlier
from sidecar.actors.context.fragments import FragmentCache
from sidecar.actors.context.index.client import NearIndex
from sidecar.actors.context.index.messages import Know
from sidecar.actors.context.kinds import language_of, read_along_with
from sidecar.actors.context.lexicon import Lexicon
from sidecar.actors.context.project import Project, Snapshot
from sidecar.actors.context.requirements import FilePatterns
from sidecar.actors.context.selection import choose
from sidecar.actors.context.words import count_terms
from sidecar.state.identity import class_of

BUDGETS_KB = (32, 128, 512)
PACKED_KB = (16, 32, 128)
UPSTREAM_FILES = 50


class Scores(NamedTuple):
    """Of one ranking: recall at each of BUDGETS_KB, and the reciprocal rank of the first file that was changed."""

    recall: tuple[float, ...]
    reciprocal: float


class Judged(NamedTuple):
    """One query: scores by system; shares of changed hunks that the context shows, by budget in KB."""

    scores: Mapping[str, Scores]
    hunks: Mapping[int, float]


def judge(repos: Path, queries: Path, scratch: Path, *, every: int = 1) -> dict[str, list[Judged]]:
    """Every `every`-th query of each repository that has a clone (bare or not) under `repos`."""
    found = {}
    for entry in json.loads(queries.read_text())["repos"]:
        clone = _clone_of(repos, entry["repo"])
        if clone is None:
            print(f"{entry['repo']}: no clone under {repos}")
            continue
        tree = scratch / entry["repo"].replace("/", "+")
        if not tree.exists():
            _git(scratch, "clone", "-q", "--shared", "--no-checkout", str(clone), str(tree))
        found[entry["repo"]] = list(_judge_repository(tree, entry, every))
        report({entry["repo"]: found[entry["repo"]]})
    return found


def _clone_of(repos: Path, name: str) -> Path | None:
    short = name.rpartition("/")[2]
    for place in (name, name.replace("/", "+"), short):
        for path in (repos / place, repos / place / "repo", repos / f"{place}.git"):
            if (path / ".git").exists() or (path / "HEAD").exists():
                return path
    return None


def _git(tree: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=tree, check=True, capture_output=True)


def _judge_repository(tree: Path, entry: Mapping[str, Any], every: int) -> Iterator[Judged]:
    project = Project(tree, FragmentCache(64 << 20), max_file_bytes=1 << 20, exclude=(), watches=False)
    index = NearIndex()
    texts = _Texts(tree, read_along_with(entry["language"]))
    for item in entry["items"][::every]:
        _git(tree, "checkout", "-q", "--force", "--detach", item["parent"])
        _git(tree, "clean", "-fdxq")
        snapshot = project.snapshot()
        index.know(Know(str(tree), list(snapshot.sizes), snapshot.git.head, 1 << 20), snapshot.files_version)
        texts.update(snapshot)
        order = _order(f"{entry['language']}-specialist", item["query"], 1 << 20)
        audience = audience_of(order.agent_type, order.agent_class, snapshot.languages)
        selection = choose(order, str(tree), snapshot, audience, index)
        while selection.index_state != "ready":  # a busy machine should not count for the names alone
            selection = choose(order, str(tree), snapshot, audience, index)
        chosen = [one.path for one in selection.files]
        bm25 = texts.ranked(item["query"])
        own = [path for path in sorted(snapshot.sizes) if path in texts.files]
        scores = {
            "sidecar": _scores(chosen, snapshot.sizes, item["gold"]),
            "BM25": _scores(bm25, snapshot.sizes, item["gold"]),
            "alphabetical": _scores(own, snapshot.sizes, item["gold"]),
            "first 50 of the language": _scores(list(_walked(tree, texts.files)), snapshot.sizes, item["gold"]),
        }
        yield Judged(scores, {kb: _hunk_recall(order, project, index, item, kb) for kb in PACKED_KB})


def _order(agent_type: str, query: str, max_bytes: int) -> BuildRequest:
    return BuildRequest(
        issue_id="bench",
        agent_type=agent_type,
        agent_class=class_of(agent_type),
        requirements=frozenset(),
        patterns=FilePatterns(()),
        query=query,
        query_from="q",
        max_bytes=max_bytes,
        refresh=False,
        earlier=Earlier((), (), "", 0),
        last_build_status=None,
        warnings=(),
    )


class _Texts:
    """Plain BM25 over the contents of one language's files: what any search library does."""

    def __init__(self, tree: Path, languages: frozenset[str]) -> None:
        self._tree = tree
        self._languages = languages
        self._lexicon = Lexicon(k1=1.2, b=0.75)
        self.files: dict[str, str] = {}

    def update(self, snapshot: Snapshot) -> None:
        wanted = {
            path: blob
            for path, blob in snapshot.listing.blobs.items()
            if path in snapshot.sizes and language_of(path) in self._languages
        }
        for path in self.files.keys() - wanted.keys():
            self._lexicon.remove(path)
        for path, blob in wanted.items():
            if self.files.get(path) != blob:
                self._lexicon.put(path, count_terms((self._tree / path).read_text(errors="replace")))
        self.files = wanted

    def ranked(self, query: str) -> list[str]:
        scores = self._lexicon.scores(count_terms(query))
        return sorted(scores, key=lambda path: (-scores[path], path))


def _walked(tree: Path, files: Mapping[str, str]) -> Iterator[str]:
    """The first files of the language in the order of the disk."""
    left = UPSTREAM_FILES
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), tree)  # noqa: PTH118
            if path in files and left:
                left -= 1
                yield path


def _scores(ranked: Sequence[str], sizes: Mapping[str, int], gold: Sequence[str]) -> Scores:
    wanted = frozenset(gold)
    first = next((place for place, path in enumerate(ranked, 1) if path in wanted), None)
    return Scores(tuple(_recall(ranked, sizes, wanted, kb * 1024) for kb in BUDGETS_KB), 1 / first if first else 0.0)


def _recall(ranked: Sequence[str], sizes: Mapping[str, int], wanted: frozenset[str], room: int) -> float:
    """Share of the wanted files in the budget: in rank order, one that does not fit is passed over."""
    found = 0
    for path in ranked:
        cost = sizes[path] + len(path) + 64
        if cost <= room:
            room -= cost
            found += path in wanted
    return found / len(wanted)


def _hunk_recall(order: BuildRequest, project: Project, index: NearIndex, item: Mapping[str, Any], kb: int) -> float:
    """Share of the changed hunks whose old lines are in a context of that size, everything else in it counted."""
    built, _ = build(order._replace(max_bytes=kb * 1024), project, index, None)
    files = {file["path"]: file for file in json.loads(built.core + b"}")["context"]["relevant_files"]}
    shown = total = 0
    for path in item["gold"]:
        for first, lines in item["hunks"].get(path, ()):
            total += 1
            file = files.get(path)
            if file is None:
                continue
            last = first + max(lines, 1) - 1
            spans = file.get("excerpts") or [{"start_line": 0, "end_line": 1 << 30}]
            shown += any(span["start_line"] <= max(first, 1) and last <= span["end_line"] for span in spans)
    return shown / total if total else 1.0


def report(found: Mapping[str, Sequence[Judged]]) -> None:
    """The table: means over queries, then over repositories; paired differences to BM25 with a 95 % interval."""
    systems = list(next(iter(found.values()))[0].scores)
    names = ", ".join(found)
    print(f"\n{names}: recall at {'/'.join(map(str, BUDGETS_KB))} KB and MRR")
    for system in systems:
        columns = [
            statistics.fmean(
                statistics.fmean(
                    (*judged.scores[system].recall, judged.scores[system].reciprocal)[column] for judged in of
                )
                for of in found.values()
            )
            for column in range(len(BUDGETS_KB) + 1)
        ]
        print(f"  {system:26s}" + " ".join(f"{value:.3f}" for value in columns))
    at = BUDGETS_KB.index(128)
    gains = [one.scores["sidecar"].recall[at] - one.scores["BM25"].recall[at] for of in found.values() for one in of]
    half = 1.96 * statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    print(f"  recall@128 KB over BM25, paired: {statistics.fmean(gains):+.3f} ± {half:.3f} ({len(gains)} queries)")
    hunks = {
        kb: statistics.fmean(statistics.fmean(one.hunks[kb] for one in of) for of in found.values()) for kb in PACKED_KB
    }
    print("  changed hunks shown: " + ", ".join(f"{share:.3f} in {kb} KB" for kb, share in hunks.items()))
