"""Several threads that decode into the same type for the first time at the same moment.

With msgspec's own decoders such a process dies of SIGSEGV within a few dozen types: a struct's field types are known
to other threads before they are complete.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from sidecar.state import typed
from sidecar.state.results.table_index import Fields, TableIndex

TYPES = 150

PROGRAM = """
from __future__ import annotations
import sys, threading
from typing import Annotated, Any
import msgspec
from sidecar.state.typed import convert, decode, decoder

sys.setswitchinterval(1e-6)
BODY = b'{"x": "a", "y": {"a": 1, "b": {"k": "v"}}, "z": [{"a": 1}], "w": "q"}'
PLAIN = msgspec.json.decode(BODY)

def read(type_):
    barrier.wait()
    value = %s
    assert value.y.a == value.z[0].a == 1

for _ in range(%d):
    class Inner(msgspec.Struct):
        a: Annotated[int, msgspec.Meta(ge=0)] = 0
        b: dict[str, str] | None = None

    class Outer(msgspec.Struct):
        x: str
        y: Inner | None = None
        z: list[Inner] = []
        w: Annotated[str, msgspec.Meta(max_length=3)] = ""
        u: frozenset[str] = frozenset()
        v: Any = None

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=read, args=(Outer,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
print("alive")
"""


@pytest.mark.parametrize("read", ["convert(PLAIN, type_)", "decode(BODY, type_)", "decoder(type_).decode(BODY)"])
def test_threads_that_meet_a_type_together_all_get_their_value(read: str) -> None:
    program = PROGRAM % (read, TYPES)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


def test_tables_that_are_made_anew_leave_no_decoder_behind_each() -> None:
    fields = Fields(indexed=("name",), columns=("colour",))
    TableIndex(fields)
    before = typed._decoder.cache_info().currsize
    for _ in range(5):
        TableIndex(fields)
    assert typed._decoder.cache_info().currsize == before
