"""Where log lines go, in a process that must not end for want of a log.

Decides what becomes of a line that cannot be written, because the disk is full or nobody reads any more: it is left out. Whoever
logs is in the middle of something (a batch that is to be answered, a caller who attaches), and goes on.
"""

from __future__ import annotations

from typing import Any


class Lines:
    """A file, of text or of bytes, that raises nothing. `left_out`: so many writes came to nothing."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.left_out = 0

    def write(self, line: Any) -> int:
        try:
            self._file.write(line)
        except (OSError, ValueError):
            self.left_out += 1
        return len(line)

    def flush(self) -> None:
        try:
            self._file.flush()
        except (OSError, ValueError):
            self.left_out += 1
