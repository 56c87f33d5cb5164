"""The stores that agents share: one of each per engine, so that what they keep in memory
(the parsed catalogue) is kept once per process."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from agents.catalogue import CatalogueStore, load_catalogue
from agents.channels import channels
from agents.followups import FollowupStore
from agents.language_model import LanguageModel
from agents.outside import Outside
from agents.quotes import QuoteStore
from orchestrator.engine import Engine
from orchestrator.outbox import Channel
from orchestrator.tasks import store_errors


@dataclass(frozen=True)
class Stores:
    """What agents keep beside tasks and sessions."""

    catalogues: CatalogueStore
    quotes: QuoteStore
    followups: FollowupStore
    model: LanguageModel
    outside: Outside
    channels: Mapping[str, Channel]


_lock = threading.Lock()
_of_engine: WeakKeyDictionary[Engine, Stores] = WeakKeyDictionary()


def stores_of(engine: Engine) -> Stores:
    """The stores of a process, opened at the first call."""
    with _lock:
        stores = _of_engine.get(engine)
        if stores is None:
            outside = Outside(engine.settings)
            stores = _of_engine[engine] = Stores(
                CatalogueStore(engine.database),
                QuoteStore(engine.database, engine.clock),
                FollowupStore(engine.database, engine.clock, engine.settings),
                LanguageModel(engine.database, engine.clock, engine.settings),
                outside,
                channels(engine.settings, engine.contacts, engine.clock, outside, engine.replies),
            )
        return stores


def prepare(engine: Engine) -> None:
    """The set-up of an agent that uses these stores: indexes, and the shipped catalogue where
    there is none yet.

    Raises:
        StoreUnavailable: MongoDB does not answer.
    """
    stores = stores_of(engine)
    stores.quotes.ensure_indexes()
    stores.followups.ensure_indexes()
    stores.model.ensure_indexes()
    with store_errors():
        stores.catalogues.seed(load_catalogue())
