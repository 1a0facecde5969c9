"""The processes of the stack: taken over or started, started again when they end or hang, stopped in the end."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from interlock.plane.leftovers import Leftovers
from interlock.plane.look import CannotLook
from interlock.plane.process import ManagedProcess, Note

START_LIMIT_SECONDS = 180.0  # whoever has not answered since it was started may still be starting, for so long
SILENT_LOOKS = 2  # so many looks in a row without an answer; a single one may be the fault of a busy machine
TAKE_OVER_SECONDS = 5.0  # a process that runs and says nothing for so long is not worth taking over


@dataclass(slots=True, eq=False)
class Member:
    """
    One process of the fleet, and how it is seen to work.

    is_answering: one quick look; None for a process that answers nobody.
    silent_limit_seconds: silent for so long, though it answered before: it hangs.
    """

    process: ManagedProcess
    is_answering: Callable[[], bool] | None = None
    silent_limit_seconds: float = 60.0
    start_limit_seconds: float = START_LIMIT_SECONDS
    is_taken_over: bool = False
    has_answered: bool = False
    silent_since: float = 0.0
    silent_looks: int = 0
    is_retired: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)  # starting and stopping: one at a time

    def looks_hung(self) -> bool:
        """Look once. Whoever has never answered since it was started may still be starting, for a while."""
        if self.is_answering is None or not self.process.is_running:
            return False
        now = time.monotonic()
        try:
            if self.is_answering():
                self.has_answered, self.silent_looks = True, 0
                return False
        except CannotLook:
            return False
        self.silent_looks += 1
        if self.silent_looks == 1:
            self.silent_since = now
        limit_seconds = self.silent_limit_seconds if self.has_answered else max(self.start_limit_seconds, self.silent_limit_seconds)
        return self.silent_looks >= SILENT_LOOKS and time.monotonic() - self.silent_since >= limit_seconds


class Fleet:
    """All processes but the model servers. `on_change` is called when one was started, from whatever thread did so."""

    def __init__(self, *, say: Callable[[str], None], on_change: Callable[[], None]) -> None:
        self._say = say
        self._on_change = on_change
        self._members: list[Member] = []

    def notes(self) -> list[Note]:
        """The processes, for the next supervisor."""
        return [note for member in list(self._members) if (note := member.process.note)]

    def take_over(self, member: Member, leftovers: Leftovers) -> bool:
        """Go on with a process that runs already, if it was started by the same command and answers; True when it does."""
        process = member.process
        if not leftovers.take_over(process):
            return False
        if not _answers_soon(member):
            process.kill()
            return False
        member.has_answered = member.is_taken_over = True  # if it is silent from now on, it hangs
        self._members.append(member)
        self._say(f"{process.name} (process {process.pid}) has run on and was taken over")
        return True

    def launch(self, member: Member) -> None:
        """Start one, unless it was taken over. Raises StateError when its program or log cannot be opened."""
        if member in self._members:
            return
        member.process.start()
        self._members.append(member)
        self._on_change()

    def retire(self, member: Member, *, grace_seconds: float) -> None:
        """Stop one that has done its work; nobody starts it again."""
        self._stop(member, grace_seconds)
        self._members.remove(member)

    def look(self, member: Member) -> None:
        """Look at one once: start it again when it has ended, end it when it hangs; the next look starts it then."""
        is_hung = member.looks_hung()
        with member.turn:
            if member.is_retired:
                return
            process = member.process
            if is_hung:
                silent_seconds = time.monotonic() - member.silent_since
                process.kill()
                self._say(f"{process.name} has not answered for {silent_seconds:.1f} s and was ended")
            if process.restart_if_dead():
                member.has_answered, member.silent_looks = False, 0
                self._on_change()
                self._say(f"{process.name} had ended and was restarted (restart {process.restart_count})")

    def stop_all(self, *, grace_seconds: float, keeps_taken_over: bool = False) -> None:
        """Stop everything, the last one first; nothing is started any more. On demand, what was taken over runs on, unsupervised."""
        for member in list(self._members):
            member.is_retired = True
        for member in reversed(list(self._members)):
            if not (keeps_taken_over and member.is_taken_over):
                self._stop(member, grace_seconds)

    def _stop(self, member: Member, grace_seconds: float) -> None:
        with member.turn:
            member.is_retired = True
            member.process.stop(grace_seconds=grace_seconds)


def _answers_soon(member: Member) -> bool:
    deadline = time.monotonic() + TAKE_OVER_SECONDS
    while member.is_answering is not None and not _answers(member.is_answering):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _answers(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except CannotLook:
        return False
