"""Secrets are taken out of logs in a thread of their own, and who asks for much waits for itself."""

from __future__ import annotations

import threading

from sidecar.actors.replies import LogChunk
from sidecar.actors.runtime.asking import Later
from sidecar.http.log_texts import LogTexts

SOON_S = 20.0
ONE, OTHER = ("project", "one"), ("project", "other")


class Gate:
    """A read that says that it has begun, and goes on when it may."""

    def __init__(self) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self.thread = ""

    def __call__(self) -> LogChunk:
        self.thread = threading.current_thread().name
        self.begun.set()
        assert self.may_go_on.wait(SOON_S)
        return chunk("first")


def chunk(text: str) -> LogChunk:
    return LogChunk(text.encode(), 0, len(text), ended=False)


def test_text_is_made_in_a_thread_of_its_own() -> None:
    texts, gate = LogTexts(), Gate()
    first = texts.of(ONE, gate)
    assert gate.begun.wait(SOON_S)
    assert gate.thread == "log-texts"
    followed: Later[LogChunk] = Later()
    second = texts.of_later(OTHER, followed)
    followed.answer(
        chunk("x ghp_" + "Ab3dEf6hIj9kLmN2pQr5sTu8vWx1yZ4cB7eG" + " y")
    )  # as an actor does, in its own thread
    assert not second.done()
    gate.may_go_on.set()
    assert first.result(SOON_S).text == "first"
    assert second.result(SOON_S).text.startswith("x [REDACTED:")


def test_readers_take_turns() -> None:
    texts, gate, order = LogTexts(), Gate(), list[str]()

    def read(name: str) -> LogChunk:
        order.append(name)
        return chunk(name)

    texts.of(ONE, gate)
    assert gate.begun.wait(SOON_S)
    mine = [texts.of(ONE, lambda name=name: read(name)) for name in ("one 2", "one 3", "one 4")]  # type: ignore[misc]
    others = [texts.of(OTHER, lambda name=name: read(name)) for name in ("other 1", "other 2")]  # type: ignore[misc]
    gate.may_go_on.set()
    for later in (*mine, *others):
        later.result(SOON_S)
    assert order == ["one 2", "other 1", "one 3", "other 2", "one 4"]


def test_what_is_given_up_is_not_read() -> None:
    texts, gate, read = LogTexts(), Gate(), list[str]()
    texts.of(ONE, gate)
    assert gate.begun.wait(SOON_S)

    def never() -> LogChunk:
        read.append("read")
        return chunk("never")

    given_up = texts.of(ONE, never)
    followed: Later[LogChunk] = Later()
    follows = texts.of_later(ONE, followed)
    last = texts.of(ONE, lambda: chunk("last"))
    assert given_up.cancel()
    assert follows.cancel()
    assert followed.cancelled()
    gate.may_go_on.set()
    assert last.result(SOON_S).text == "last"
    assert read == []


def test_a_fault_is_told_to_who_asked_and_nobody_else() -> None:
    texts = LogTexts()

    def fails() -> LogChunk:
        raise ValueError("no log")

    failed = texts.of(ONE, fails)
    assert isinstance(failed.exception(SOON_S), ValueError)
    assert texts.of(ONE, lambda: chunk("fine")).result(SOON_S).text == "fine"
