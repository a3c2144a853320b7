"""SIGTERM (a preempted job) and Ctrl-C end a run after the current step, with a checkpoint; a second Ctrl-C at once."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ss4d.training.distributed import World, highest

LAUNCHER_SECONDS = 2.0  # within which a second Ctrl-C is that of a launcher, which passes the first one on


class StopSignal:
    """The signal that a run is to stop for, if any.

    Attributes:
        received: the last one that reached this process.
        agreed: what all processes agreed on; they stop at the same step.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.agreed: int | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Note signals instead of dying of them. A handler that is already there, such as a launcher's, stays."""

        first = None  # when the first Ctrl-C came

        def note(number: int, _: Any) -> None:
            nonlocal first
            if number == signal.SIGINT and first is not None and time.monotonic() - first > LAUNCHER_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)  # whatever hangs in the step, such as a disk, need not return
            elif number == signal.SIGINT and first is None:
                first = time.monotonic()
                print("\nstopping after this step; Ctrl-C again ends at once, without a checkpoint", file=sys.stderr)
            self.received = number

        default: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
        ours = [number for number, handler in default.items() if signal.getsignal(number) == handler]
        for number in ours:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number in ours:
                signal.signal(number, default[number])

    def agree(self, world: World) -> None:
        """Set `agreed` (all processes must call this). A signal that comes meanwhile stays in `received`, for the next
        call."""
        self.agreed = highest(self.received, world)
