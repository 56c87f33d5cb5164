"""What is known of a customer's address beside its sessions: when it was last heard from, and
whether it wants to be left alone.

Keeps secret how an address gets a name that says nothing: an HMAC under a key of this
installation. That name stands in ordering keys and in this collection, never the address.

Collection `contacts`, one document per address:

    _id            `alias` of the address
    heard          {channel: when it last wrote there}
    opted_out_at   when it asked not to be written to; answers go there all the same
"""

import datetime as dt
from contextlib import suppress
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.clock import Clock
from orchestrator.keys import SigningKey
from orchestrator.tasks import store_errors

Document = dict[str, Any]


class Contacts:
    """Customers' addresses (phones in E.164, or `Session.address`). Raises StoreUnavailable as the
    task store does."""

    def __init__(self, database: Database[Document], clock: Clock) -> None:
        self._contacts = database["contacts"]
        self._key = SigningKey(database, "contacts")
        self._clock = clock

    def alias(self, address: str) -> str:
        """The name of an address: the same everywhere in this installation, and in no other."""
        return self._key.sign(address)

    def heard_from(self, address: str, channel: str, at: dt.datetime) -> None:
        """Note that the address wrote on a channel at a time."""
        self._write(address, {"$max": {f"heard.{channel}": at}})

    def last_heard(self, address: str, channel: str) -> dt.datetime | None:
        """When the address last wrote on a channel."""
        heard: dt.datetime | None = self._read(address).get("heard", {}).get(channel)
        return heard

    def opt_out(self, address: str) -> None:
        """The customer wants no messages that are not answers."""
        self._write(address, {"$set": {"opted_out_at": self._clock.now()}})

    def opted_out(self, address: str) -> bool:
        """Whether the customer has asked to be left alone."""
        return "opted_out_at" in self._read(address)

    def forget(self, address: str) -> None:
        """Erase what is known of an address, its opt-out included."""
        with store_errors():
            self._contacts.delete_one({"_id": self.alias(address)})

    def forget_but_opt_out(self, address: str) -> None:
        """Erase what is known of an address, but not that it wants to be left alone."""
        if self.opted_out(address):
            self._write(address, {"$unset": {"heard": ""}})
        else:
            self.forget(address)

    def known(self, address: str) -> Document:
        """All that is known of an address, without its name here."""
        return {name: fact for name, fact in self._read(address).items() if name != "_id"}

    def _read(self, address: str) -> Document:
        with store_errors():
            return self._contacts.find_one({"_id": self.alias(address)}) or {}

    def _write(self, address: str, update: Document) -> None:
        name = {"_id": self.alias(address)}
        with store_errors():
            if not self._contacts.update_one(name, update).matched_count:
                with suppress(DuplicateKeyError):
                    self._contacts.insert_one(dict(name))
                self._contacts.update_one(name, update)
