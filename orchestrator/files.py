"""Files that agents make for people: small, kept under an id, never changed.

Collection `files`:

    _id           given by who keeps it: another content is another id
    content       bytes, at most MAX_FILE_BYTES
    content_type  "application/pdf"
    name          what a browser saves it as
    etag          hash of the content
    created_at

Written by `Files`; kept as long as what it was made from.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.clock import Clock
from orchestrator.tasks import store_errors

Document = dict[str, Any]

# A document of MongoDB ends at 16 MB; a quote of 60 items has 60 kB.
MAX_FILE_BYTES = 4 * 1024 * 1024


class FileTooLarge(ValueError):
    """The content has more than MAX_FILE_BYTES."""


@dataclass(frozen=True)
class File:
    """A file as it was kept."""

    content: bytes
    content_type: str
    name: str
    etag: str


class Files:
    """Every method raises StoreUnavailable when MongoDB does not answer."""

    def __init__(self, database: Database[Document], clock: Clock) -> None:
        self._files = database["files"]
        self._clock = clock

    def keep(self, file_id: str, content: bytes, *, content_type: str, name: str) -> None:
        """Keep a file; one that is there already stays as it is.

        Raises:
            FileTooLarge: it is.
        """
        if len(content) > MAX_FILE_BYTES:
            raise FileTooLarge(f"{len(content)} bytes")
        document = {
            "_id": file_id,
            "content": content,
            "content_type": content_type,
            "name": name,
            "etag": hashlib.sha256(content).hexdigest()[:32],
            "created_at": self._clock.now(),
        }
        with store_errors(), suppress(DuplicateKeyError):
            self._files.insert_one(document)

    def get(self, file_id: str) -> File | None:
        """The file, if it is there."""
        with store_errors():
            found = self._files.find_one({"_id": file_id})
        if found is None:
            return None
        return File(
            content=bytes(found["content"]),
            content_type=found["content_type"],
            name=found["name"],
            etag=found["etag"],
        )

    def remove_of(self, owner_id: str) -> int:
        """Remove the files that were made from something: their ids are its own and a dot."""
        with store_errors():
            # "/" is the character after the dot.
            made = {"_id": {"$gte": f"{owner_id}.", "$lt": f"{owner_id}/"}}
            return self._files.delete_many(made).deleted_count
