"""Signals that ask a run to stop: while it trains they wait for a checkpoint at the next step."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # submitit takes SIGUSR2 for preemption


class Interrupted(BaseException):
    """A run was asked to stop by a signal, and did. No `except Exception` may take it for an error."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """What shells and schedulers expect of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


class Signals:
    """The signals of this process, which has one run at a time.

    Attributes:
        received: the signal that waits for the next step, if any.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._waits = False
        self._previous: dict[int, Any] = {}

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle them here, and give them back afterwards to whoever had them."""
        if current_thread() is not main_thread():  # Python takes handlers from there alone
            yield
            return
        self.received, self._waits = None, False
        found = {signum: signal.getsignal(signum) for signum in ASKING}
        self._previous = {k: handler for k, handler in found.items() if handler not in (None, signal.SIG_IGN)}
        self.install()
        try:
            yield
        finally:
            for signum, handler in self._previous.items():
                signal.signal(signum, handler)
            if self.received is not None:  # the run ended before the step for which it waited
                raise Interrupted(self.received)

    def install(self) -> None:
        for signum, previous in self._previous.items():
            if signum != signal.SIGUSR2 or callable(previous):  # only submitit sends it
                signal.signal(signum, self._handle)

    def wait(self, waits: bool) -> None:
        """From now on signals wait for `stop`, or no longer do."""
        self._waits = waits
        self.install()  # Lightning takes SIGTERM for itself when it begins, and ends without a checkpoint

    def _handle(self, signum: int, frame: Any) -> None:
        if self._waits and self.received is None:
            self.received = signum
            if signum == signal.SIGINT:
                print("\nStopping after this step, with a checkpoint. Ctrl-C again stops now.", file=sys.stderr)
            return
        self.received = signum
        self.stop()

    def stop(self) -> None:
        """Leave, if a signal was received: its previous handler may take over (submitit's puts the job back in line).

        Raises:
            Interrupted, KeyboardInterrupt: unless that handler returns, which means that the run continues.
        """
        signum, self.received = self.received, None
        if signum is None:
            return
        previous = self._previous.get(signum)
        if callable(previous) and previous is not signal.default_int_handler:
            previous(signum, None)
        elif signum == signal.SIGINT and not self._waits:
            raise KeyboardInterrupt
        else:
            raise Interrupted(signum)


signals = Signals()
