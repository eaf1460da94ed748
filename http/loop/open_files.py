"""The limit on open files, which limits the number of connections."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)

RESERVED_FILES = 256  # journals, agents' pipes, sources being read


def fit_connection_limit(wanted: int) -> int:
    """Raise the soft limit on open files for `wanted` connections. Returns how many fit, besides RESERVED_FILES."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
        except (OSError, ValueError) as error:  # macOS has a further limit that getrlimit does not tell
            log.info("limit on open files not raised wanted=%d: %s", raised, error)
    fits = wanted if soft == resource.RLIM_INFINITY else max(min(wanted, soft - RESERVED_FILES), 1)
    if fits < wanted:
        log.warning("connection limit cut, raise the limit on open files limit=%d wanted=%d", fits, wanted)
    return fits
