"""An actor that fails costs what it was doing, and no more: the same handle goes on, nobody hangs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from sidecar.actors.runtime.actor_state import ACTOR_LIFECYCLE, ActorOccurrence, ActorState
from sidecar.actors.runtime.actor_supervisor import ActorHandle, ActorSupervisor
from sidecar.actors.runtime.asking import Envelope, Fact, Later, Request, ask
from sidecar.actors.runtime.owner import LoopEnded, Owner
from sidecar.actors.runtime.timers import Timers
from sidecar.actors.runtime.turns import TurnByTurn
from sidecar.state.errors import NotFound, Unavailable
from sidecar.supervision.restart import RestartIntensity
from tests.fleet import wait_until

WITHIN_S = 5.0


class Count(Request[int], frozen=True):
    """How many facts this incarnation has seen."""


class Do(Request[Any], frozen=True):
    what: Callable[[], Any]


class Noted(Fact, frozen=True):
    pass


class Numbered(Fact, frozen=True):
    number: int


class Hold(Request[None], frozen=True):
    """Answered never: the actor keeps the Later."""


class Keep(Request[None], frozen=True):
    """Answered never: the test keeps the Later."""

    keep: Callable[[Later[None]], None]


class Counter(Owner):
    released: threading.Event | None = None

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        before()
        super().__init__()
        self.noted = 0
        self.held: list[Later[None]] = []

    def handle(self, message: Any) -> Any:
        match message:
            case Count():
                return self.noted
            case Noted():
                self.noted += 1
                return None
            case Hold():
                self.held.append(self.later())
                return self.held[-1]
            case Keep(keep):
                later = self.later()
                keep(later)
                return later
            case Do(what):
                return what()
        return super().handle(message)

    def release(self) -> None:
        if Counter.released is not None:
            Counter.released.set()


class World:
    def __init__(self, make: Callable[[], Owner] = Counter, max_restarts: int = 3) -> None:
        self.gave_up = threading.Event()
        self.supervisor = ActorSupervisor(
            gave_up=lambda name, reason: self.gave_up.set(),
            intensity=RestartIntensity(max_restarts=max_restarts, within_s=60),
        )
        self.counter: ActorHandle = self.supervisor.handle("counter", make)

    def ask(self, request: Request[Any], timeout_s: float = WITHIN_S) -> Any:
        return ask(self.counter, request, timeout_s=timeout_s)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.supervisor.start()
    yield world
    world.supervisor.stop()


def fail(error: BaseException) -> Callable[[], Any]:
    def raise_() -> Any:
        raise error

    return raise_


def test_a_request_is_answered_with_its_reply(world: World) -> None:
    world.counter.tell(Noted())
    assert world.ask(Count()) == 1


def test_an_expected_error_reaches_the_asker_and_is_no_failure(world: World) -> None:
    with pytest.raises(NotFound, match="agent 7"):
        world.ask(Do(fail(NotFound("agent 7 is not known"))))
    assert world.counter.status().failures == 0


def test_an_unexpected_error_costs_that_message_only(world: World) -> None:
    world.counter.tell(Noted())
    with pytest.raises(ZeroDivisionError):
        world.ask(Do(lambda: 1 // 0))
    assert world.ask(Count()) == 1
    status = world.counter.status()
    assert (status.failures, status.restarts, status.state) == (1, 0, "running")
    assert "ZeroDivisionError" in (status.last_error or "")


def test_a_system_exit_restarts_that_actor_alone_and_its_asker_is_told(world: World) -> None:
    other = world.supervisor.handle("other", Counter)
    other.start()
    other.tell(Noted())
    world.counter.tell(Noted())
    with pytest.raises(Unavailable):
        world.ask(Do(sys.exit))
    assert world.ask(Count()) == 0
    assert ask(other, Count(), timeout_s=WITHIN_S) == 1
    assert world.counter.status().restarts == 1
    assert other.status().restarts == 0


def test_requests_in_flight_are_refused_and_not_left_hanging(world: World) -> None:
    held = world.counter.request(Hold())
    world.counter.restart("drill")
    with pytest.raises(Unavailable, match="counter"):
        held.result(timeout=WITHIN_S)


def test_facts_told_while_the_loop_dies_reach_the_next_incarnation(world: World) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def die_when_told() -> None:
        entered.set()
        assert go_on.wait(WITHIN_S)
        sys.exit(1)

    dying = world.counter.request(Do(die_when_told))
    assert entered.wait(WITHIN_S)
    for _ in range(100):
        world.counter.tell(Noted())
    queued = world.counter.request(Count())
    go_on.set()
    with pytest.raises(Unavailable):
        dying.result(timeout=WITHIN_S)
    with pytest.raises(Unavailable):
        queued.result(timeout=WITHIN_S)
    assert world.ask(Count()) == 100


def test_under_restarts_every_fact_arrives_once_and_every_request_is_answered_or_refused() -> None:
    arrived: list[int] = []

    class Collector(Counter):
        def handle(self, message: Any) -> Any:
            if isinstance(message, Numbered):
                arrived.append(message.number)
                return None
            return super().handle(message)

    world = World(Collector, max_restarts=1000)
    world.supervisor.start()
    outcomes: list[str] = []

    def tell(numbers: range) -> None:
        for number in numbers:
            world.counter.tell(Numbered(number))

    def ask_often() -> None:
        for _ in range(300):
            try:
                world.ask(Count())
                outcomes.append("answered")
            except Unavailable as refused:
                outcomes.append(str(refused))

    threads = [threading.Thread(target=tell, args=(range(n * 1000, (n + 1) * 1000),)) for n in range(3)]
    threads += [threading.Thread(target=ask_often) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        with suppress(Unavailable, SystemExit):
            world.ask(Do(sys.exit))
    for thread in threads:
        thread.join(30)
    world.ask(Count())
    world.supervisor.stop()
    assert sorted(arrived) == list(range(3000))
    assert len(outcomes) == 600
    assert "answered" in outcomes
    assert not [text for text in outcomes if "within" in text], "a request was left hanging until its time-out"


def test_restarts_that_were_asked_for_do_not_count_towards_giving_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(10):
        world.counter.restart("drill")
        wait_until(lambda n=n: world.counter.status().restarts == n + 1)  # type: ignore[misc]
    assert world.ask(Count()) == 0
    assert not world.gave_up.is_set()
    assert "Traceback" not in caplog.text


def test_an_actor_that_cannot_start_is_tried_again_and_then_given_up() -> None:
    starts: list[int] = []

    def start_once() -> None:
        starts.append(1)
        if len(starts) > 1:
            raise OSError("the disk is gone")

    world = World(lambda: Counter(start_once), max_restarts=3)
    world.supervisor.start()
    world.counter.restart("drill")
    assert world.gave_up.wait(WITHIN_S)
    assert len(starts) == 1 + 1 + 3  # the first, the one asked for, and as many as may be
    assert world.counter.status().state == "failed"
    with pytest.raises(Unavailable):
        world.ask(Count())
    world.supervisor.stop()


def test_too_many_failed_messages_restart_the_actor(world: World) -> None:
    for _ in range(4):
        with pytest.raises((ZeroDivisionError, Unavailable)):
            world.ask(Do(lambda: 1 // 0))
    with suppress(Unavailable):  # it may still have been in the mailbox of the incarnation that ended
        world.ask(Count())
    assert world.ask(Count()) == 0
    assert world.counter.status().restarts == 1


def test_what_an_actor_holds_is_released_when_its_loop_dies(world: World) -> None:
    Counter.released = threading.Event()
    world.counter.restart("drill")
    assert Counter.released.wait(WITHIN_S)
    Counter.released = None


def test_an_ask_ends_at_its_time_out_and_the_actor_sees_that_nobody_waits(world: World) -> None:
    seen: list[Later[None]] = []
    gone = threading.Event()

    def keep(later: Later[None]) -> None:
        later.add_done_callback(lambda _: gone.set())
        seen.append(later)

    with pytest.raises(Unavailable, match=r"counter did not answer Keep within 0\.05 s"):
        world.ask(Keep(keep), timeout_s=0.05)
    assert gone.wait(WITHIN_S)
    assert seen[0].cancelled()


def test_a_stopped_actor_finishes_its_mailbox_and_then_refuses(world: World) -> None:
    for _ in range(50):
        world.counter.tell(Noted())
    last = world.counter.request(Count())
    world.supervisor.stop()
    assert last.result(timeout=WITHIN_S) == 50
    with pytest.raises(Unavailable, match="is not running"):
        world.ask(Count())


def test_timers_tell_facts_in_the_order_in_which_they_are_due() -> None:
    told: list[str] = []
    both = threading.Event()

    class Recorder:
        name = "recorder"

        def tell(self, fact: Fact) -> None:
            told.append(type(fact).__name__)
            if len(told) == 2:
                both.set()

        def request(self, _: Request[Any]) -> Later[Any]:
            raise AssertionError("timers only tell")

    class Soon(Fact, frozen=True):
        pass

    timers = Timers()
    timers.start()
    timers.tell_after(0.05, Recorder(), Noted())
    timers.tell_after(0.01, Recorder(), Soon())
    assert both.wait(WITHIN_S)
    assert told == ["Soon", "Noted"]
    timers.stop()


class TestMessagesOfATurn:
    def test_they_are_handled_in_order_without_any_other_in_between(self, world: World) -> None:
        order: list[str] = []
        turns = TurnByTurn(world.counter)
        turns.flush()  # this thread is the loop
        for name in ("first", "second", "third"):
            turns.request(Do(lambda name=name: order.append(name)))  # type: ignore[misc]
        assert world.ask(Do(lambda: order.append("from elsewhere"))) is None
        last = turns.request(Do(lambda: order.append("last")))
        turns.flush()
        last.result(timeout=WITHIN_S)
        assert order == ["from elsewhere", "first", "second", "third", "last"]

    def test_other_threads_do_not_wait_for_the_turn(self, world: World) -> None:
        turns = TurnByTurn(world.counter)
        turns.flush()
        answers: list[int] = []

        def elsewhere() -> None:
            turns.tell(Noted())
            answers.append(turns.request(Count()).result(timeout=WITHIN_S))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(WITHIN_S)
        assert answers == [1]

    def test_one_that_fails_costs_only_itself(self, world: World) -> None:
        turns = TurnByTurn(world.counter)
        turns.flush()
        before, failing = turns.request(Count()), turns.request(Do(fail(NotFound("no such thing"))))
        turns.tell(Noted())
        after = turns.request(Count())
        turns.flush()
        assert (before.result(timeout=WITHIN_S), after.result(timeout=WITHIN_S)) == (0, 1)
        with pytest.raises(NotFound):
            failing.result(timeout=WITHIN_S)

    def test_facts_behind_one_that_ends_the_loop_go_on_and_requests_are_told(self, world: World) -> None:
        ending, behind = Later[Any](), Later[int]()
        world.counter.send(
            (
                Envelope(Do(fail(LoopEnded("on purpose"))), ending),
                Envelope(Noted(), None),
                Envelope(Count(), behind),
                Envelope(Noted(), None),
            )
        )
        for later in (ending, behind):
            with pytest.raises(Unavailable, match="restarted"):
                later.result(timeout=WITHIN_S)
        assert world.ask(Count()) == 2
        assert (world.counter.status().restarts, world.counter.status().failures) == (1, 0)


def test_a_stopped_actor_stays_stopped_until_its_start_is_asked_for() -> None:
    stays = {occurrence for occurrence in ActorOccurrence if occurrence is not ActorOccurrence.START_ASKED}
    assert all(ACTOR_LIFECYCLE[ActorState.STOPPED, occurrence] is ActorState.STOPPED for occurrence in stays)
    assert all(ACTOR_LIFECYCLE[state, ActorOccurrence.STOP_ASKED] is ActorState.STOPPED for state in ActorState)


def test_only_an_actor_that_keeps_dying_fails() -> None:
    leads_to_failed = {when for when, state in ACTOR_LIFECYCLE.items() if state is ActorState.FAILED}
    assert leads_to_failed == {(ActorState.RESTARTING, ActorOccurrence.GIVEN_UP)}
