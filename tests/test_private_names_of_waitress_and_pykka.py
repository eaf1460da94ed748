"""What we build on that Waitress and Pykka do not promise. A new version that changes any of it fails here first.

Waitress: http/loop: request_parser.py, answers.py, watched_channel.py, polled_channel.py, connection.py, io_loop.py.
Pykka: actors/runtime/owner.py.
"""

from __future__ import annotations

import ast
import inspect
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pykka
import pytest
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, Task, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import BadRequest

ROOT = Path(__file__).parent.parent

# Names without an underscore count too where a library documents none of the class.
CHANNEL = (
    "add_channel del_channel service cancel readable handle_read handle_write handle_close recv send write_soon "
    "task_class error_task_class request will_close close_when_flushed total_outbufs_len last_activity connected "
    "current_outbuf_count sent_continue parser_class"
)
SERVER = "accept add_task maintenance pull_trigger set_socket_options channel_class"
TASK = (
    "service finish write build_response_header set_close_on_finish has_body complete wrote_header status "
    "content_length chunked_response close_on_finish"
)
PARSER = "received parse_header get_body_stream close completed error version"
DISPATCHER = "add_task set_thread_count shutdown queue_logger"


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (HTTPChannel, CHANNEL),
        (TcpWSGIServer, SERVER),
        (Task, TASK),
        (WSGITask, "get_environment execute"),
        (ErrorTask, "execute"),
        (HTTPRequestParser, PARSER),
        (ThreadedTaskDispatcher, DISPATCHER),
        (wasyncore.dispatcher, "close"),
        (wasyncore, "close_all"),
        (
            pykka.ThreadingActor,
            "_start_actor_loop _actor_loop _actor_loop_teardown _handle_failure _create_actor_inbox",
        ),
        (pykka.ActorRegistry, "register unregister"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_name_we_use_is_there(owner: Any, names: str) -> None:
    assert [name for name in names.split() if not hasattr(owner, name)] == []


def test_only_versions_that_were_read_are_installed() -> None:
    """pyproject.toml pins the same; a reader who raises the pin should read the diff of these modules."""
    assert version("waitress").split(".")[:2] == ["3", "0"]
    assert version("pykka").split(".")[:2] == ["4", "5"]


WAITRESS_HAS = {"_fileno", "_map"}
PYKKA_HAS = {"_start_actor_loop", "_actor_loop", "_actor_loop_teardown", "_handle_failure"}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("http/loop/answers.py", WAITRESS_HAS),
        ("http/loop/polled_channel.py", WAITRESS_HAS),
        ("http/loop/watched_channel.py", WAITRESS_HAS),
        ("http/loop/connection.py", WAITRESS_HAS),
        ("http/loop/io_loop.py", WAITRESS_HAS),
        ("http/loop/request_parser.py", WAITRESS_HAS),
        ("actors/runtime/actor_supervisor.py", PYKKA_HAS),
        ("actors/runtime/owner.py", PYKKA_HAS),
    ],
)
def test_no_other_private_name_is_used(path: str, allowed: set[str]) -> None:
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text())))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    ours = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    ours |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    ours |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)} - allowed
    assert {name for name in used - ours if not name.startswith("__")} <= allowed


# --- What Waitress does with those names --------------------------------------------------------------------------


class Unwind(BaseException):
    """Not caught by Waitress, as Park is not."""


def no_answer(*_: object) -> list[bytes]:
    return []


class Recorder:
    """Stands in for the server: a channel asks it for this much."""

    def __init__(self) -> None:
        self.adj = Adjustments(log_socket_errors=False)
        self.active_channels: dict[int, Any] = {}
        self.application: Callable[..., Any] = no_answer
        self.effective_port = 80
        self.server_name = "x"
        self.tasks: list[Any] = []

    def add_task(self, task: Any) -> None:
        self.tasks.append(task)

    def pull_trigger(self) -> None:
        pass


@pytest.fixture
def pair() -> Iterator[tuple[HTTPChannel, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    channel = HTTPChannel(Recorder(), ours, ("127.0.0.1", 1), Adjustments(log_socket_errors=False), map={})
    yield channel, theirs
    channel.handle_close()
    theirs.close()


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Replying(Task):  # type: ignore[misc]
    complete = True

    def execute(self) -> None:
        self.content_length = 2
        head = self.build_response_header()
        self.wrote_header = True
        self.channel.write_soon(head + b"ok")


def unwinding(channel: HTTPChannel, request: HTTPRequestParser) -> Task:
    class Unwinding(Task):  # type: ignore[misc]
        def execute(self) -> None:
            raise Unwind

    return Unwinding(channel, request)


def test_unwinding_a_task_leaves_its_request_in_place_to_be_served_again(pair: Any) -> None:
    channel, client = pair
    channel.received(GET + GET)
    assert len(channel.requests) == 2
    channel.task_class = unwinding
    with pytest.raises(Unwind):
        channel.service()
    assert len(channel.requests) == 2
    channel.task_class = Replying
    channel.service()
    assert len(channel.requests) == 1
    assert client.recv(65536).endswith(b"\r\n\r\nok")


def test_channel_asks_for_a_task_when_a_request_is_complete_and_none_waits_before_it(pair: Any) -> None:
    channel, _ = pair
    channel.received(GET[:10])
    assert (channel.server.tasks, channel.request is None) == ([], False)
    channel.received(GET[10:] + GET)
    assert (channel.server.tasks, channel.request) == ([channel], None)


def test_channel_reads_nothing_while_a_request_or_output_is_pending(pair: Any) -> None:
    channel, _ = pair
    assert channel.readable()
    channel.received(GET)
    assert not channel.readable()
    channel.requests.clear()
    channel.total_outbufs_len = 1
    assert not channel.readable()
    channel.total_outbufs_len = 0


def test_write_soon_sends_at_once_and_does_not_close_a_broken_channel(pair: Any) -> None:
    channel, client = pair
    channel.write_soon(b"now")
    assert (client.recv(10), channel.total_outbufs_len) == (b"now", 0)
    client.close()
    channel.write_soon(b"lost")
    assert (channel.connected, channel.total_outbufs_len) == (True, 4)  # the counter that a close sets to zero
    channel.handle_write()
    assert (channel.connected, channel.total_outbufs_len) == (False, 0)


def test_lock_of_the_output_is_used_in_no_other_way(pair: Any) -> None:
    """We put a lock of our own in its place, which nobody can wait on."""
    channel, client = pair

    class Lock:
        def __init__(self) -> None:
            self.used: set[str] = set()
            self._lock = threading.RLock()

        def __getattr__(self, name: str) -> Any:
            self.used.add(name)
            return (lambda: None) if name == "notify" else getattr(self._lock, name)

        def __enter__(self) -> None:
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    channel.outbuf_lock = lock = Lock()
    channel.received(GET)
    channel.task_class = Replying
    channel.service()
    assert client.recv(65536).endswith(b"ok")
    channel.write_soon(b"more")
    channel._flush_some_if_lockable()
    channel.handle_close()
    assert lock.used <= {"acquire", "release", "notify"}


def test_answer_that_ends_its_connection_drops_the_requests_behind_it(pair: Any) -> None:
    channel, _ = pair
    channel.received(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET)
    channel.task_class = Replying
    channel.service()
    assert (channel.requests, channel.close_when_flushed) == ([], True)


def test_refusal_carries_a_code_and_a_reason(pair: Any) -> None:
    channel, _ = pair
    channel.received(b"GET / HTTP/1.1\r\nno colon\r\n\r\n")
    error = channel.requests[0].error
    assert (isinstance(error, BadRequest), error.code, error.body) == (True, 400, "Invalid header")


def test_handler_that_fails_is_answered_by_the_error_task(pair: Any) -> None:
    channel, _ = pair
    refused: list[int] = []

    class Refusal(ErrorTask):  # type: ignore[misc]
        def execute(self) -> None:
            refused.append(self.request.error.code)
            super().execute()

    def fail(*_: object) -> Any:
        raise ValueError("on purpose")

    channel.server.application = fail
    channel.error_task_class = Refusal
    channel.received(GET)
    channel.service()
    assert refused == [500]


def test_server_takes_a_bound_socket_and_a_dispatcher_and_registers_in_a_map() -> None:
    parameters = inspect.signature(TcpWSGIServer.__init__).parameters
    wanted = {"application", "map", "_sock", "dispatcher", "adj", "sockinfo", "bind_socket"}
    assert wanted <= set(parameters)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        dispatcher = ThreadedTaskDispatcher()
        server = TcpWSGIServer(
            no_answer,
            map={},
            _sock=sock,
            dispatcher=dispatcher,
            adj=Adjustments(sockets=[sock]),
            sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
            bind_socket=False,
        )
        assert server._map[server._fileno] is server
        assert server._map[server.trigger._fileno] is server.trigger
        assert server.task_dispatcher is dispatcher
        server.trigger.pull_trigger()
        server.trigger.handle_read()
        server.close()
        assert server._map == {}


# --- Pykka --------------------------------------------------------------------------------------------------------


def in_actor(actor_class: type[pykka.ThreadingActor], act: Callable[[pykka.ActorRef[Any]], None]) -> Any:
    """An actor as the supervisor makes it: constructed, registered and its loop begun in three steps."""
    actor = actor_class()
    pykka.ActorRegistry.register(actor.actor_ref)
    actor._start_actor_loop()
    act(actor.actor_ref)
    return actor


def test_mailbox_is_a_queue_that_outlives_the_loop() -> None:
    ended = threading.Event()

    class Failing(pykka.ThreadingActor):
        use_daemon_thread = True

        def on_receive(self, message: Any) -> Any:
            raise RuntimeError(message)

        def _actor_loop_teardown(self) -> None:
            """Keep what is left."""

        def _actor_loop(self) -> None:
            super()._actor_loop()
            ended.set()

        def _handle_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
            super()._handle_failure(exception_type, exception_value, traceback)
            self.actor_inbox.put("left")  # type: ignore[arg-type]

    actor = in_actor(Failing, lambda ref: ref.tell("boom"))
    assert ended.wait(5.0)
    assert isinstance(actor.actor_inbox, queue.Queue)
    assert actor.actor_inbox.get_nowait() == "left"


def test_message_arrives_in_an_envelope() -> None:
    class Idle(pykka.ThreadingActor):
        pass

    actor = Idle()
    actor.actor_ref.tell("hello")
    assert actor.actor_inbox.get().message == "hello"
