"""Which files are worth sending, best first: those asked for, those the task points at, those of the agent's kind."""

from __future__ import annotations

from typing import NamedTuple

from .audience import Audience
from .build_request import BuildRequest
from .index.client import Index
from .packing import Chosen
from .project import Snapshot
from .ranking import Ranked, by_path, ordered

RANK_S = 2.0
# Files of no kind of the agent's come in when the task points at them: with at least this part of the best score.
_POINTED_AT = 0.25
_POINTED_AT_BY_NAME = 0.5  # the same where there are only scores from names, which run from 0 to about 3


class FileSelection(NamedTuple):
    """index_state: ready, or warming or unavailable: then the files were chosen by their names alone."""

    files: list[Chosen]
    index_state: str


def choose(order: BuildRequest, root: str, snapshot: Snapshot, audience: Audience, index: Index) -> FileSelection:
    """Every file worth sending. root: as the index knows the project."""
    sizes = snapshot.sizes
    named = [Chosen(path, 1.0, True, "asked for") for path in order.patterns.matched(sizes)]
    ranked, state = _ranked(order, root, snapshot, index)
    best = max((one.score for one in ranked), default=0.0) or 1.0
    least = best * _POINTED_AT if state == "ready" else max(best * _POINTED_AT, _POINTED_AT_BY_NAME)
    own = snapshot.once(("own", audience), lambda: _own_files(snapshot, audience))
    scores = {
        path: (score / best * audience.prior(path), why)
        for path, score, why in ranked
        if path in sizes and (path in own or (score >= least and _is_pointed_at(why, order)))
    }
    keys = sorted([(-score, path.count("/"), path) for path, (score, _) in scores.items()])
    best_first = [Chosen(path, -score, False, scores[path][1]) for score, _, path in keys]
    # Below everything that the task points at: the rest of what belongs to the agent, lately touched first.
    floor = (best_first[-1].score if best_first else 1.0) / 2
    best_first += [
        Chosen(path, floor * worth, False, "of the agent's kind") for path, worth in own.items() if path not in scores
    ]
    if named:
        front = {one.path for one in named}
        best_first = [one for one in best_first if one.path not in front]
    return FileSelection(named + best_first, state)


def _is_pointed_at(why: str, order: BuildRequest) -> bool:
    """Whether a task speaks for the file; that it was committed lately says nothing of what the agent should do."""
    return why in ("earlier results", "uncommitted") or (bool(order.query) and why != "recent")


def _own_files(snapshot: Snapshot, audience: Audience) -> dict[str, float]:
    """Every file of the agent's kind and what it is worth without a task, 0 to 1, best first."""
    own = [path for path in snapshot.sizes if audience.belongs(path)]
    scores = by_path(own, "", touched=snapshot.touched, dirty=(), seeds=())
    top = max(scores.values(), default=0.0) + 0.01
    worth = {path: (score + 0.01) / top * min(1.0, audience.prior(path)) for path, score in scores.items()}
    return {path: worth[path] for path in ordered(worth)}


def _ranked(order: BuildRequest, root: str, snapshot: Snapshot, index: Index) -> tuple[list[Ranked], str]:
    """The files the task points at, by the index, or from names alone while there is none."""
    dirty = [change.path for change in snapshot.git.changes]
    seeds = [path for path in order.earlier.seeds if path in snapshot.sizes]
    query = order.query or "\n".join(commit.message for commit in snapshot.git.commits[:3])
    found = index.rank(root, query, seeds, dirty, timeout_s=RANK_S)
    if found is not None and found.ready:
        return [Ranked(*one) for one in found.files], "ready"
    scores = by_path(snapshot.sizes, query, touched=snapshot.touched, dirty=dirty, seeds=seeds)
    state = "warming" if found is not None or index.is_starting else "unavailable"
    said = {path: score for path, score in scores.items() if score > 0}
    return [Ranked(path, said[path], "path") for path in ordered(said)], state


def anything(snapshot: Snapshot) -> list[Chosen]:
    """Every file there is, for an agent of whose kind there is none."""
    scores = by_path(snapshot.sizes, "", touched=snapshot.touched, dirty=(), seeds=())
    return [Chosen(path, scores[path], False, "nothing of the agent's kind") for path in ordered(scores)]
