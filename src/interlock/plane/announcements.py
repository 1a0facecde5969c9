"""What the threads of the supervisor have to say, said by its main thread: a terminal that takes no output holds up nobody else."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator

LONGEST_QUEUE = 1000  # the main thread empties it four times a second, so more is a terminal that has been stopped


class Announcements:
    """A queue of sentences and log records. Any thread may put something in; only the main thread takes it out."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._waiting: queue.Queue[Callable[[], object]] = queue.Queue(maxsize=LONGEST_QUEUE)
        self._dropped_count = 0

    def say(self, text: str) -> None:
        """Have this printed soon. Never waits."""
        self._put(lambda: self._say(text))

    def print_all(self) -> None:
        """Print what has come in so far; for the main thread only. A terminal that is gone is no reason to stop supervising."""
        with contextlib.suppress(OSError, SystemExit):  # SystemExit is what rich makes of a broken pipe
            for _ in range(self._waiting.qsize()):
                self._waiting.get()()
            if self._dropped_count:
                dropped, self._dropped_count = self._dropped_count, 0
                self._say(f"{dropped} messages were dropped: nothing could be printed for a while")

    @contextlib.contextmanager
    def instead_of_logging(self) -> Iterator[None]:
        """While this lasts, what another thread logs is handled by the main thread, whatever the root logger writes to."""
        handlers = [handler for handler in (*logging.getLogger().handlers, logging.lastResort) if handler]
        filters = [(handler, self._only_main(handler)) for handler in handlers]
        for handler, only_main in filters:
            handler.addFilter(only_main)
        try:
            yield
        finally:
            for handler, only_main in filters:
                handler.removeFilter(only_main)

    def _only_main(self, handler: logging.Handler) -> Callable[[logging.LogRecord], bool]:
        def only_main(record: logging.LogRecord) -> bool:
            if threading.current_thread() is threading.main_thread():
                return True
            self._put(lambda: handler.handle(record))  # asked again there, and let through
            return False

        return only_main

    def _put(self, act: Callable[[], object]) -> None:
        try:
            self._waiting.put_nowait(act)
        except queue.Full:
            self._dropped_count += 1
