"""Writes a study's record from a thread of its own, so that a slow or absent store never delays the study.

What waits is merged by run. A store that is away is asked again until it answers; what it refuses for good
is told and left out. If too much waits, whole trials are left out until ``catch_up`` writes them anew from
the study itself.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from gerbil_tune.errors import LaunchError
from gerbil_tune.tracking.tracker import (
    ParameterValue,
    RecordedRun,
    RunUpdate,
    StoreAwayError,
    Tracker,
)
from gerbil_tune.urls import without_password

_logger = logging.getLogger(__name__)

Lacking = Callable[[Mapping[int, RecordedRun]], Iterable[tuple[int, RunUpdate]]]
"""Given what the record has by trial, what it lacks; called in the thread once the store can be read."""

_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 10.0
_MAX_WAITING = 5000
"""Runs and epochs that wait at most, some ten megabytes."""

_OPEN, _CATCH_UP = "open", "catch up"
_Key = int | str | tuple[Path, str] | None
"""A trial's number, None for the study, one of the two words, or an artifact and its folder."""
_Job = RunUpdate | Callable[[], None]


class Delivery:
    """A queue in front of a tracker; from now on the tracker belongs to the queue's thread.

    Attributes:
        study_run_id: The parent run; None until the store has opened it.

    Args:
        tracker: Where everything goes.
        lacking: Tells what the record lacks.
        max_waiting: Runs and epochs that wait at most.
    """

    def __init__(
        self, tracker: Tracker, lacking: Lacking, *, max_waiting: int = _MAX_WAITING
    ) -> None:
        self.study_run_id: str | None = None
        self._tracker = tracker
        self._lacking = lacking
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: OrderedDict[_Key, _Job] = OrderedDict()
        self._size = 0
        self._left_out: set[_Key] = set()
        self._refused: set[_Key] = set()
        self._retry_s = 0.0  # above 0 while the store is away
        self._fatal: LaunchError | None = None
        self._busy = False
        self._hurry = False  # ask the store at once, whatever it has just said
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def open(
        self,
        name: str,
        study_id: str,
        parameters: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        *,
        timeout_s: float,
    ) -> str | None:
        """Start the thread, which opens the study's run before all else; see ``Tracker.open_study``.

        Returns:
            The run's id; None if the store is away or does not answer in time.

        Raises:
            LaunchError: If the store is wrong in itself.
        """

        def open_study() -> None:
            self.study_run_id = self._tracker.open_study(name, study_id, parameters, tags)

        with self._changed:
            self._waiting[_OPEN] = open_study
            self._waiting.move_to_end(_OPEN, last=False)
            self._thread.start()
            self._changed.wait_for(
                lambda: self.study_run_id or self._fatal or self._retry_s, timeout_s
            )
            if self._fatal is not None:
                raise self._fatal
            if not (self.study_run_id or self._retry_s):
                _logger.warning(
                    "the tracking store %s does not answer yet; the study goes on", self._uri()
                )
            return self.study_run_id

    def submit(self, trial: int | None, update: RunUpdate) -> None:
        """Take what is new about a trial, or about the study (None); returns at once."""
        with self._changed:
            if trial in self._left_out or self._fatal is not None:
                return
            earlier = self._waiting.get(trial)
            if isinstance(earlier, RunUpdate):
                self._size -= _size(earlier)
                earlier.add(update)
                update = earlier
            self._waiting[trial] = update
            self._size += _size(update)
            if self._size > self._max_waiting:
                self._leave_out()
            self._changed.notify_all()

    def catch_up(self) -> None:
        """After all that waits, write what the record lacks then."""
        with self._changed:
            if self._fatal is not None:
                return
            self._waiting[_CATCH_UP] = self._write_what_lacks
            self._waiting.move_to_end(_CATCH_UP)
            self._changed.notify_all()

    def attach(self, path: Path, folder: str = "") -> None:
        """Keep a file or directory with the study, as it is once everything else is written."""
        with self._changed:
            if self._fatal is not None:
                return
            self._waiting[path, folder] = lambda: self._tracker.log_artifact(path, folder)
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> int:
        """Wait until everything is written; return how many entries are not."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: not (self._waiting or self._busy) or not self._thread.is_alive(), timeout_s
            )
            return len(self._waiting) + self._busy

    def close(self) -> None:
        """Let the thread end after what it is at; what waits is dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            key, job = taken
            try:
                if isinstance(job, RunUpdate):
                    assert key is None or isinstance(key, int)
                    self._tracker.write(key, job)
                else:
                    job()
            except StoreAwayError as error:
                self._put_back(key, job, error)
            except Exception as error:  # whatever it is, the study must not end for its record
                self._refuse(key, error)
            else:
                self._note_success()

    def _take(self) -> tuple[_Key, _Job] | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if self._closing:
                return None
            self._busy = True
            # Artifacts come last, for one that cannot be uploaded must not hold up the rest.
            first = next(iter(self._waiting))
            key = next((key for key in self._waiting if not isinstance(key, tuple)), first)
            job = self._waiting.pop(key)
            self._size -= _size(job)
            return key, job

    def _put_back(self, key: _Key, job: _Job, error: StoreAwayError) -> None:
        """Put a job first again, with what became new about its run since, and wait a while."""
        with self._changed:
            self._busy = False
            if not self._retry_s:
                _logger.warning(
                    "%s; the study goes on, and its record is kept and written later", error
                )
            later = self._waiting.get(key)
            if isinstance(job, RunUpdate) and isinstance(later, RunUpdate):
                self._size -= _size(later)
                job.add(later)
            self._waiting[key] = job
            self._waiting.move_to_end(key, last=isinstance(key, tuple))
            self._size += _size(job)
            self._retry_s = min(max(2 * self._retry_s, _FIRST_RETRY_S), _LONGEST_RETRY_S)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing or self._hurry, self._retry_s)
            self._hurry = False

    def _refuse(self, key: _Key, error: Exception) -> None:
        with self._changed:
            if key == _OPEN:
                self._fatal = error if isinstance(error, LaunchError) else LaunchError(str(error))
                self._waiting.clear()
                self._closing = True
            if key not in self._refused and (key != _OPEN or self._retry_s):
                _logger.warning(
                    "%s is not recorded: %s", _describe(key), without_password(str(error))
                )
            self._refused.add(key)
            self._changed.notify_all()

    def _note_success(self) -> None:
        with self._changed:
            if self._retry_s:
                _logger.info("the tracking store %s can be used again", self._uri())
            self._retry_s = 0.0
            if self._left_out and _CATCH_UP not in self._waiting:
                self.catch_up()
            self._changed.notify_all()

    def _uri(self) -> str:
        return without_password(self._tracker.uri)

    def _leave_out(self) -> None:
        """Drop the trials that wait longest, until half of the room is free."""
        for key in [key for key in self._waiting if isinstance(key, int)]:
            if self._size <= self._max_waiting // 2:
                return
            self._size -= _size(self._waiting.pop(key))
            self._left_out.add(key)

    def _write_what_lacks(self) -> None:
        with self._changed:
            self._left_out.clear()
        for trial, update in self._lacking(self._tracker.recorded()):
            try:
                self._tracker.write(trial, update)
            except StoreAwayError:
                raise
            except LaunchError as error:
                self._refuse(trial, error)


def _size(job: _Job) -> int:
    return 1 + len(job.epochs) if isinstance(job, RunUpdate) else 0


def _describe(key: _Key) -> str:
    if key is None or key == _OPEN:
        return "the study"
    if isinstance(key, tuple):
        return str(key[0])
    return f"trial {key}" if isinstance(key, int) else "what the record lacked"
