"""Creates the observers of a sidecar, and closes them at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ...actors.runtime.actor_supervisor import AskedHook
from .auditing import Auditor, auditing
from .instruments import Instruments
from .meter import RequestMeter
from .observer import Observer, all_of
from .telemetry import tracing


class Observers(msgspec.Struct, frozen=True):
    """The observers that routes read, and `everyone`: all observers as one, including the one that traces.

    asked: called with requests to actors; None without tracing, so that requests take no detour.
    """

    meter: RequestMeter
    instruments: Instruments
    auditor: Auditor
    everyone: Observer
    asked: AskedHook | None


@contextmanager
def observing(storage: Path, environ: Mapping[str, str]) -> Iterator[Observers]:
    """The observers, until the end. Spans are made where `environ` asks for them. Raises what Journal.open raises."""
    with tracing(environ) as tracer, auditing(storage) as auditor:
        meter, instruments = RequestMeter(), Instruments()
        everyone = all_of(meter, instruments, auditor, *(() if tracer is None else (tracer,)))
        yield Observers(meter, instruments, auditor, everyone, None if tracer is None else everyone.asked)
