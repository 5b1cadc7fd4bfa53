"""One thing done beside the training, whose failure is heard when somebody waits for it."""

import threading
from collections.abc import Callable


class Background:
    """A thread that does one thing at a time. It does not keep the process alive: what it leaves is incomplete."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self, action: Callable[[], None]) -> None:
        """Begin ``action``, after what was begun before.

        :raises Exception: that of what was begun before
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(action,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until what was begun has ended.

        :raises Exception: what ended it, once
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as failure:  # noqa: BLE001 - raised again by wait
            self._failure = failure
