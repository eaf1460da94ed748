"""Answers that come later: given once, in any thread, and told to everybody who wants to know."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest

from sidecar.actors.runtime.asking import AnswerGroup, Later, once_together
from sidecar.state.errors import NotFound

WITHIN_S = 5.0


def outcome(later: Later[Any]) -> Any:
    try:
        return later.result()
    except (CancelledError, TimeoutError, NotFound) as error:
        return type(error)


ENDS = {
    "answered": (lambda later: later.answer(1), 1),
    "refused": (lambda later: later.refuse(NotFound("nothing there")), NotFound),
    "cancelled": (lambda later: later.cancel(), CancelledError),
}


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
def test_the_first_end_is_the_end(first: str, second: str) -> None:
    later: Later[int] = Later()
    ENDS[first][0](later)
    ENDS[second][0](later)
    assert outcome(later) == ENDS[first][1]
    assert later.done()
    assert later.cancelled() == (first == "cancelled")


def test_nothing_is_known_before_the_end() -> None:
    later: Later[int] = Later()
    assert (later.done(), later.cancelled(), outcome(later)) == (False, False, TimeoutError)


@pytest.mark.parametrize("end", ENDS)
def test_callbacks_hear_of_the_end_once_whether_they_came_before_or_after(end: str) -> None:
    later: Later[int] = Later()
    heard: list[str] = []
    later.add_done_callback(lambda it: heard.append(f"before, done {it.done()}"))
    ENDS[end][0](later)
    later.add_done_callback(lambda it: heard.append(f"after, done {it.done()}"))
    later.cancel()
    assert heard == ["before, done True", "after, done True"]


def test_a_callback_that_fails_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    later: Later[int] = Later()
    heard: list[int] = []
    later.add_done_callback(lambda _: 1 / 0)
    later.add_done_callback(lambda it: heard.append(it.result()))
    assert later.answer(7)
    assert heard == [7]
    assert "ZeroDivisionError" in caplog.text


def test_who_answers_learns_that_nobody_asks_any_more() -> None:
    later: Later[int] = Later()
    told = threading.Event()
    later.unclaimed = told.set
    assert later.cancel()
    assert not later.answer(1)
    assert told.is_set()


def test_who_waits_is_woken_by_another_thread() -> None:
    later: Later[int] = Later()
    answerer = threading.Timer(0.01, later.answer, (5,))
    answerer.start()
    assert later.result(timeout=WITHIN_S) == 5
    answerer.join(WITHIN_S)


def test_a_wait_ends_without_an_answer() -> None:
    later: Later[int] = Later()
    assert not later.wait(0.01)
    with pytest.raises(TimeoutError):
        later.result(timeout=0.01)


def test_of_an_answer_and_a_cancellation_in_the_same_moment_one_wins() -> None:
    for _ in range(200):
        later: Later[int] = Later()
        unclaimed: list[bool] = []
        later.unclaimed = lambda unclaimed=unclaimed: unclaimed.append(True)  # type: ignore[misc]
        gate = threading.Barrier(2, timeout=WITHIN_S)
        cancelled: list[bool] = []

        def cancel(later: Later[int] = later, gate: threading.Barrier = gate, told: list[bool] = cancelled) -> None:
            gate.wait()
            told.append(later.cancel())

        thread = threading.Thread(target=cancel)
        thread.start()
        gate.wait()
        given = later.answer(1)
        thread.join(WITHIN_S)
        assert cancelled == [not given]
        assert unclaimed == ([] if given else [True])


class TestAnswersGivenTogether:
    def test_what_they_make_one_do_is_done_once_and_at_the_end(self) -> None:
        done: list[str] = []

        def rouse() -> None:
            done.append("roused")

        def woken(later: Later[int]) -> None:
            done.append(f"answer {later.result()}")
            once_together(rouse)

        laters = [Later[int]() for _ in range(3)]
        with AnswerGroup():
            for number, later in enumerate(laters):
                later.add_done_callback(woken)
                later.answer(number)
        assert done == ["answer 0", "answer 1", "answer 2", "roused"]

    def test_one_given_alone_does_it_at_once(self) -> None:
        done: list[str] = []
        once_together(lambda: done.append("roused"))
        assert done == ["roused"]

    def test_it_is_done_even_if_the_giving_fails(self) -> None:
        done: list[str] = []

        def fail() -> None:
            with AnswerGroup():
                once_together(lambda: done.append("roused"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert done == ["roused"]

    def test_other_threads_do_not_wait_for_it(self) -> None:
        done = threading.Event()
        with AnswerGroup():
            thread = threading.Thread(target=once_together, args=(done.set,))
            thread.start()
            thread.join(WITHIN_S)
            assert done.is_set()
