"""Keys of this installation, made once and kept in the database.

Collection `keys`: {_id: what it is for, key: 32 random bytes}.
"""

import hmac
import secrets
from contextlib import suppress
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.tasks import store_errors


class SigningKey:
    """Signs texts: the same everywhere in this installation, and in no other. Raises
    StoreUnavailable as the task store does, until the key has been read."""

    def __init__(self, database: Database[dict[str, Any]], purpose: str) -> None:
        self._keys = database["keys"]
        self._name = {"_id": purpose}
        self._key: bytes | None = None

    def sign(self, text: str) -> str:
        """128 bits of an HMAC with SHA-256, in hex."""
        return hmac.digest(self._secret(), text.encode(), "sha256").hex()[:32]

    def _secret(self) -> bytes:
        if self._key is None:
            with store_errors():
                known = self._keys.find_one(self._name)
                if known is None:
                    with suppress(DuplicateKeyError):
                        self._keys.insert_one(self._name | {"key": secrets.token_bytes(32)})
                    known = self._keys.find_one(self._name)
            assert known is not None
            self._key = bytes(known["key"])
        return self._key
