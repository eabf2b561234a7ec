"""A file mapped into memory for reading: pages come when touched and can be given back."""

from __future__ import annotations

import mmap
from pathlib import Path

from temper.errors import CheckpointError, MalformedFile


class MappedFile:
    """The bytes of one file, read-only. Views into `data` keep the mapping alive.

    Raises:
        CheckpointError: the file cannot be opened.
        MalformedFile: the file is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise MalformedFile(f"{path.name}: a weight file must not be empty", hint="fetch it again") from None
        except OSError as error:
            raise CheckpointError(f"cannot open '{path}': {error.strerror}", hint="check the path") from error

    def release(self) -> None:
        """Give the pages read so far back to the system; touching them again reads the file again."""
        self.data.madvise(mmap.MADV_DONTNEED)
