"""Says how an incarnation ended: for `last_error`, for lifecycle events and for the log."""

from __future__ import annotations

import logging
import signal
from typing import Any

from ...state.agent_entries import AgentRecord
from ...state.models import ExitCause
from ...supervision.process_exit import ExitStatus

log = logging.getLogger(__name__)


def describe_end(status: ExitStatus, note: str, lines: tuple[str, ...]) -> str:
    """One line for `last_error`: what happened, and what the agent said last."""
    if note:
        what = note
    elif status.signal is not None:
        what = f"ended by {_name_of(status.signal)}"
    elif status.exit_code is not None:
        what = f"ended with exit code {status.exit_code}"
    else:
        what = "ended with an unknown cause"
    said = next((line for line in reversed(lines) if line.strip()), "")
    return f"{what}: {said}" if said else what


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"


def how_it_ended(record: AgentRecord, last_lines: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of lifecycle events about the last end."""
    how = {"cause": record.cause, "exit_code": record.exit_code, "signal": record.signal}
    return {**how, "last_lines": last_lines} if last_lines else how


def was_wanted(record: AgentRecord) -> bool:
    """Whether the last end was no crash: it ended well, or on request."""
    return record.exit_code == 0 or record.cause is ExitCause.KILLED


def log_exit(record: AgentRecord, lines: tuple[str, ...], *, is_crash: bool) -> None:
    """Log the end of an incarnation that the record names."""
    said = next((line for line in reversed(lines) if line.strip()), "")
    log.log(
        logging.WARNING if is_crash else logging.INFO,
        "agent exited agent_id=%s incarnation=%d cause=%s exit_code=%s signal=%s ran_for_s=%.3f last_line=%s",
        record.spec.agent_id,
        record.incarnation,
        record.cause,
        record.exit_code,
        record.signal,
        record.ran_for_s,
        # An agent wrote it: no control character may reach the terminal that shows the log.
        "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in said),
    )
