"""Decides whether spans are wanted: OpenTelemetry is imported only if its standard variables ask for it."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .spans import Tracing

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_DISABLED = "OTEL_SDK_DISABLED"
_EXTRA = "opentelemetry.exporter.otlp.proto.http"


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether an endpoint or the `otlp` exporter is set, and nothing switches it off.

    Source: OpenTelemetry, "Environment Variable Specification". Its default exporter, `otlp` to port 4318 of this
    machine, is not taken for granted: most sidecars have no collector next to them.
    """
    exporter = environ.get(_EXPORTER, "")
    if environ.get(_DISABLED, "").lower() == "true" or exporter not in ("", "otlp"):
        return False
    return exporter == "otlp" or any(environ.get(name) for name in _ENDPOINTS)


def is_installed() -> bool:
    try:
        return importlib.util.find_spec(_EXTRA) is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def tracing(environ: Mapping[str, str]) -> Iterator[Tracing | None]:
    """The tracer, until the end; None if tracing is off."""
    if not is_wanted(environ):
        yield None
        return
    if not is_installed():
        log.warning("spans not exported: OpenTelemetry is not installed; pip install 'orchestration-sidecar[otel]'")
        yield None
        return
    from .spans import Tracing, exporter

    made = Tracing(exporter())
    try:
        yield made
    finally:
        made.close()
