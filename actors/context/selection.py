"""Which files are worth sending, best first: those asked for, those the task points at, those of the agent's kind."""

from __future__ import annotations

from typing import NamedTuple

from .audience import Audience
from .index_client import Index
from .order import Order
from .packing import Chosen
from .project import Snapshot
from .ranking import Ranked, by_path, ordered

RANK_S = 2.0
# Files of no kind of the agent's come in when the task points at them: with at least this part of the best score.
_POINTED_AT = 0.25
_POINTED_AT_BY_NAME = 0.5  # the same where there are only scores from names, which run from 0 to about 3


class Selection(NamedTuple):
    """index_state: ready, or warming or unavailable: then the files were chosen by their names alone."""

    files: list[Chosen]
    index_state: str


def choose(order: Order, root: str, snapshot: Snapshot, audience: Audience, index: Index) -> Selection:
    """Every file worth sending. root: as the index knows the project."""
    sizes = snapshot.sizes
    named = [Chosen(path, 1.0, True, "asked for") for path in order.patterns.matched(sizes)]
    ranked, state = _ranked(order, root, snapshot, index)
    best = max((one.score for one in ranked), default=0.0) or 1.0
    least = best * _POINTED_AT if state == "ready" else max(best * _POINTED_AT, _POINTED_AT_BY_NAME)
    chosen = {
        one.path: Chosen(one.path, one.score / best * audience.prior(one.path), False, one.why)
        for one in ranked
        if one.path in sizes and (audience.belongs(one.path) or (one.score >= least and _is_pointed_at(one, order)))
    }
    best_first = sorted(chosen.values(), key=lambda one: (-one.score, one.path.count("/"), one.path))
    best_first += _rest(chosen, snapshot, audience)
    front = {one.path for one in named}
    return Selection(named + [one for one in best_first if one.path not in front], state)


def _is_pointed_at(one: Ranked, order: Order) -> bool:
    """Whether a task speaks for the file; that it was committed lately says nothing of what the agent should do."""
    return one.why in ("earlier results", "uncommitted") or (bool(order.query) and one.why != "recent")


def _rest(chosen: dict[str, Chosen], snapshot: Snapshot, audience: Audience) -> list[Chosen]:
    """Below everything that the task points at: the rest of what belongs to the agent, lately touched first."""
    floor = min((one.score for one in chosen.values()), default=1.0) / 2
    own = snapshot.once(("own", audience), lambda: _own_files(snapshot, audience))
    return [Chosen(path, floor * worth, False, "of the agent's kind") for path, worth in own if path not in chosen]


def _own_files(snapshot: Snapshot, audience: Audience) -> list[tuple[str, float]]:
    """Every file of the agent's kind and what it is worth without a task, 0 to 1, best first."""
    own = [path for path in snapshot.sizes if audience.belongs(path)]
    scores = by_path(own, "", touched=snapshot.touched, dirty=(), seeds=())
    top = max(scores.values(), default=0.0) + 0.01
    worth = {path: (score + 0.01) / top * min(1.0, audience.prior(path)) for path, score in scores.items()}
    return [(path, worth[path]) for path in ordered(worth)]


def _ranked(order: Order, root: str, snapshot: Snapshot, index: Index) -> tuple[list[Ranked], str]:
    """The files the task points at, by the index, or from names alone while there is none."""
    dirty = [change.path for change in snapshot.git.changes]
    seeds = [path for path in order.earlier.seeds if path in snapshot.sizes]
    query = order.query or "\n".join(commit.message for commit in snapshot.git.commits[:3])
    found = index.rank(root, query, seeds, dirty, timeout_s=RANK_S)
    if found is not None and found.ready:
        return [Ranked(*one) for one in found.files], "ready"
    scores = by_path(snapshot.sizes, query, touched=snapshot.touched, dirty=dirty, seeds=seeds)
    state = "warming" if found is not None or index.is_starting else "unavailable"
    return [Ranked(path, scores[path], "path") for path in ordered(scores) if scores[path] > 0], state


def anything(snapshot: Snapshot) -> list[Chosen]:
    """Every file there is, for an agent of whose kind there is none."""
    scores = by_path(snapshot.sizes, "", touched=snapshot.touched, dirty=(), seeds=())
    return [Chosen(path, scores[path], False, "nothing of the agent's kind") for path in ordered(scores)]
