"""The syncs of a process: sides opened, runs taken in turn, timers kept.

Keeps secret which connector stands for a side of the settings file, and that one run of a sync is
under way at a time.
"""

import datetime as dt
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from agents.catalogue import CatalogueNotFound, changes
from agents.data_sync import definitions as sides
from agents.data_sync.connector import Connector
from agents.data_sync.definitions import (
    Definitions,
    DefinitionsInvalid,
    Sink,
    Sync,
    load_definitions,
)
from agents.data_sync.files import FileSource
from agents.data_sync.http_json import HttpJson
from agents.data_sync.imports import CatalogueImports, CatalogueSide, products_of, staged_rows
from agents.data_sync.leaving import (
    MERCADOLIBRE,
    SINK,
    Answers,
    Sinks,
    question_session,
    tell_quotes,
)
from agents.data_sync.mapping import WrongCell
from agents.data_sync.mercadolibre import MAX_ANSWER_CHARS, MercadoLibre
from agents.data_sync.reconcile import Winner
from agents.data_sync.records import RecordsSide
from agents.data_sync.running import Finished, Running, Tried
from agents.data_sync.shopify import Shopify
from agents.data_sync.store import Records, Run, RunOvertaken, SyncStore
from agents.data_sync.web import (
    Authorisation,
    ClientCredentialsToken,
    FixedToken,
    RefreshingToken,
    Web,
)
from agents.data_sync.webhook import WebhookOut
from agents.stores import stores_of
from orchestrator import Request, TaskError
from orchestrator.context import ordering_key
from orchestrator.engine import Engine
from orchestrator.errors import NotFound, OrchestratorError, RetryLater, StoreUnavailable
from orchestrator.logs import log
from orchestrator.outbox import Channel
from orchestrator.tasks import store_errors

Document = dict[str, Any]
Side = TypeVar("Side")
TIMER = "sync/"
# While another run of the same sync is under way.
TURN_S = 2.0
PROGRESS_S = 2.0
# Rows of one page get numbers from a block of their own, so that their order stays.
BLOCK = 10_000
VERSIONS_SHOWN = 200

_lock = threading.Lock()
_of_engine: WeakKeyDictionary[Engine, "Syncs"] = WeakKeyDictionary()


def syncs_of(engine: Engine) -> "Syncs":
    """The syncs of a process."""
    with _lock:
        syncs = _of_engine.get(engine)
        if syncs is None:
            syncs = _of_engine[engine] = Syncs(engine)
        return syncs


class Syncs:
    """Runs what the settings file names. Raises StoreUnavailable where MongoDB does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._settings = engine.settings
        self._clock = engine.clock
        self._tasks = engine.store
        self._timers = engine.timers
        self._database = engine.database
        stores = stores_of(engine)
        self._catalogues = stores.catalogues
        self._outside = stores.outside
        self._known: Definitions | None = None
        self._opening = threading.Lock()
        self._tokens_of: dict[Any, Authorisation] = {}
        kept_days = engine.settings.task_retention_days
        self.store = SyncStore(engine.database, engine.clock, kept_days)
        self.records = Records(engine.database, engine.clock)
        self.imports = CatalogueImports(
            engine.database, stores.catalogues, engine.clock, engine.settings
        )
        self._quotes = stores.quotes
        self._sessions = engine.sessions
        self._outbox = engine.outbox
        self._coordinator = engine.coordinator
        self._sign = engine.contacts.alias
        self.channels: dict[str, Channel] = {
            SINK: Sinks(lambda: self.definitions, stores.quotes, engine.sessions, self._open_sink),
            MERCADOLIBRE: Answers(self._answering, self._sign),
        }

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        self.store.ensure_indexes()
        self.records.ensure_indexes()
        self.imports.ensure_indexes()

    @property
    def definitions(self) -> Definitions:
        """What the settings file names now; what it last named, while somebody is at it.

        Raises:
            TaskError: `settings_invalid`, it never could be used.
        """
        try:
            self._known = load_definitions(self._settings.syncs_file)
        except (DefinitionsInvalid, OSError) as error:
            log.warning("sync.settings_invalid", error=type(error).__name__)
            if self._known is None:
                raise TaskError("settings_invalid", "SYNCS_FILE cannot be used.") from None
        return self._known

    def declare(self, definitions: Definitions) -> None:
        """Let others see the syncs, and keep their timers as the file has them."""
        for name, sync in definitions.syncs.items():
            self.store.declare(
                name,
                {
                    "source": sync.source.type,
                    "target": sync.target.type,
                    "schedule": sync.schedule,
                    "conflicts": sync.conflicts,
                    "deletes": sync.deletes,
                },
            )
            if sync.schedule is not None:
                self._timers.put(
                    f"{TIMER}{name}",
                    Request("run_sync", {"sync": name}, caller="timer"),
                    cron=sync.schedule,
                    zone=self._settings.business_zone,
                )
        self.store.retire(definitions.syncs)
        for timer in self._timers.names(TIMER):
            kept = definitions.syncs.get(timer.removeprefix(TIMER))
            if kept is None or kept.schedule is None:
                self._timers.remove(timer)

    # -- running -------------------------------------------------------------------------

    def run(
        self,
        name: str,
        run_id: str,
        *,
        dry_run: bool,
        full: bool,
        confirmed: bool,
        should_stop: Callable[[], bool],
        progress: Callable[[Document], None] = lambda facts: None,
    ) -> Document:
        """See `agent.run_sync`; `progress` hears how far it is, every few seconds."""
        sync = self.definitions.syncs.get(name)
        if sync is None:
            raise TaskError("no_such_sync", "The settings file names no such sync.", sync=name)
        if not dry_run:
            self._take(name, run_id)
        run = self.store.begin(run_id, name, dry_run=dry_run, full=full)
        if run.state != "running":
            # Its task runs again: it died before it could say so.
            self.store.release(name, run_id)
            return run.report()
        told_at = self._clock.monotonic()

        def tell(run: Run) -> None:
            nonlocal told_at
            if self._clock.monotonic() - told_at >= PROGRESS_S:
                told_at = self._clock.monotonic()
                progress({"page": run.page} | run.counts)

        try:
            self._running(name, sync, run).go_on(
                run, should_stop=should_stop, progress=tell, confirmed=confirmed
            )
        except RetryLater as later:
            patience = dt.timedelta(seconds=sync.patience_s)
            if self._clock.now() - run.started_at < patience:
                raise
            self._failed(run, str(later.facts.get("reason", later.code)), later.detail)
            raise TaskError("patience_over", later.detail) from None
        except TaskError as error:
            self._failed(run, error.task_code, error.detail)
            raise
        except RunOvertaken:
            raise RetryLater("Another attempt of this run is further.") from None
        return run.report()

    def _take(self, name: str, run_id: str) -> None:
        while (active := self.store.take(name, run_id)) is not None:
            try:
                ended = self._tasks.get(active).state.final
            except NotFound:
                ended = True
            if not ended:
                raise RetryLater("Another run of this sync is under way.", after_s=TURN_S)
            # It was cancelled, or its worker was lost for good.
            log.info("sync.run_given_up", sync=name, run=active)
            self.store.release(name, active)

    def _failed(self, run: Run, code: str, detail: str) -> None:
        try:
            self.store.finish(run, "failed", {"code": code, "detail": detail})
        except RunOvertaken:
            log.info("sync.run_ended_already", sync=run.sync, run=run.id)

    def _running(self, name: str, sync: Sync, run: Run) -> Running:
        target = self._open(sync.target, run)
        base = finish = restart = None
        if isinstance(sync.target, sides.CatalogueSide):

            def base(keys: list[str]) -> dict[str, Document]:
                published = self.imports.published_by(name)
                found = {} if published is None else products_of(published, keys)
                return {key: dict(values) for key, values in found.items()}

            def finish(run: Run, tried: Mapping[str, Tried]) -> Finished:
                return self._bring_in(name, sync, run, tried)

            def restart() -> None:
                self.imports.unstage(run.id)

        source = self._open(sync.source, run)
        return Running(
            self.store, name, sync, source, target, base=base, finish=finish, restart=restart
        )

    def _open_sink(self, sink: Sink, entry_id: str) -> Connector:
        run = Run(entry_id, "", False, False, "running", 0, None, {}, self._clock.now())
        return self._open(sink.target, run)

    def _open(self, side: sides.Side, run: Run) -> Connector:
        match side:
            case sides.FileSide():
                return FileSource(
                    self._settings.import_dir,
                    side.path,
                    form=side.format,
                    sheet=side.sheet,
                    header_row=side.header_row,
                    items=side.items,
                )
            case sides.CatalogueSide():
                return CatalogueSide(
                    self.imports, self._catalogues, run.id, lambda: run.page * BLOCK + 1
                )
            case sides.RecordsSide():
                return RecordsSide(self.records, side.dataset)
            case sides.HttpSide():
                return HttpJson(self._web(side), side, self._clock.now)
            case sides.ShopifySide():
                token = FixedToken(self.secret(side.secret))
                web = Web(self._outside, token, lambda each: {"X-Shopify-Access-Token": each})
                return Shopify(web, side, self._clock.now)
            case sides.MercadoLibreSide():
                return self.seller(side)
            case sides.GoogleSheetSide():
                # Google's libraries are slow to load, and most syncs have no sheet.
                from agents.data_sync.sheets import GoogleSheet

                return GoogleSheet(self._google(side), side)
            case sides.WebhookSide():
                key = self.secret(side.secret)
                return WebhookOut(self._outside, side, key, self._clock.now, run.id)

    def seller(self, side: sides.MercadoLibreSide) -> MercadoLibre:
        """A seller's account."""
        return MercadoLibre(
            Web(self._outside, self._token(side, self._of_seller)), side.url, side.seller_id
        )

    def _of_seller(self, side: sides.MercadoLibreSide) -> Authorisation:
        url = f"{side.url.rstrip('/')}/oauth/token"
        secret = self.secret(side.secret)
        if side.refresh_secret is not None:
            return RefreshingToken(
                self._outside,
                self._clock.now,
                self.store,
                url=url,
                client_id=side.client_id,
                secret=secret,
                first=self.secret(side.refresh_secret),
            )
        return ClientCredentialsToken(
            self._outside,
            self._clock.now,
            url=url,
            client_id=side.client_id,
            secret=secret,
            in_body=True,
        )

    def _google(self, side: sides.GoogleSheetSide) -> Web:
        from agents.data_sync.sheets import ServiceAccount

        account = self._token(
            side.secret, lambda name: ServiceAccount(self._outside, self.secret(name))
        )
        return Web(self._outside, account)

    def _web(self, side: sides.HttpSide) -> Web:
        authorisation: Authorisation | None = None
        if side.oauth is not None:
            authorisation = self._token(
                side.oauth,
                lambda oauth: ClientCredentialsToken(
                    self._outside,
                    self._clock.now,
                    url=oauth.token_url,
                    client_id=oauth.client_id,
                    secret=self.secret(oauth.secret),
                    scope=oauth.scope,
                ),
            )
        elif side.secret is not None:
            authorisation = FixedToken(self.secret(side.secret))
        return Web(self._outside, authorisation)

    def _token(self, key: Side, make: Callable[[Side], Authorisation]) -> Authorisation:
        """The authorisation of a connection: one per process, which keeps its token."""
        with self._opening:
            if key not in self._tokens_of:
                self._tokens_of[key] = make(key)
            return self._tokens_of[key]

    def secret(self, name: str) -> Any:
        """A secret of SYNC_SECRETS.

        Raises:
            TaskError: `secret_missing`.
        """
        given = self._settings.sync_secrets
        secrets = {} if given is None else json.loads(given.get_secret_value())
        if name not in secrets:
            raise TaskError("secret_missing", "SYNC_SECRETS has no such secret.", secret=name)
        return secrets[name]

    # -- the catalogue -------------------------------------------------------------------

    def _bring_in(self, name: str, sync: Sync, run: Run, tried: Mapping[str, Tried]) -> Finished:
        if run.dry_run:
            rows = staged_rows({key: each.row for key, each in tried.items()})
            gone: list[str] = []
        else:
            rows, gone = self.imports.staged(run.id)
        if not (rows or gone):
            return Finished({"state": "unchanged"})
        done = self.imports.bring_in(run.id, rows, gone, sync=name, dry_run=run.dry_run)
        ids = {row.number: str(row.product["id"]) for row in rows}
        keys = [ids[cell.row] for cell in done.applied.wrong]
        places = (
            {key: tried[key].place for key in keys}
            if run.dry_run
            else {key: link.place for key, link in self.store.links(name, keys).items()}
        )
        wrong: dict[str, tuple[WrongCell, ...]] = {}
        for key, cell in zip(keys, done.applied.wrong, strict=True):
            column = sync.columns.get(cell.column.replace(".", "_"))
            shown = (column.source if column else None) or cell.column
            place = places.get(key)
            told = WrongCell(key if place is None else place, shown, key, cell.reason)
            wrong[key] = (*wrong.get(key, ()), told)
        if run.dry_run:
            new = done.state == "unchanged" and done.version is None
            would: Document = {"would_be": "published" if new else done.state}
            if done.doubts:
                would["doubts"] = list(done.doubts)
            return Finished(would, wrong=wrong)
        result: Document = {"state": done.state, "version": done.version}
        held: Document | None = None
        if done.state == "held":
            held = {
                "code": "import_held",
                "detail": "The import waits for a person.",
                "doubts": list(done.doubts),
            }
        return Finished(result, held, wrong)

    def decide_import(self, import_id: str, decision: str, by: str) -> Document:
        """Let a held import in, or keep it out."""
        if decision == "reject":
            self.imports.reject(import_id, by)
            return {"import_id": import_id, "state": "rejected", "version": None}
        done = self.imports.approve(import_id, by)
        return {"import_id": import_id, "state": done.state, "version": done.version}

    def restore(self, version: int, key: str) -> Document:
        """See `agent.restore_catalogue`."""
        try:
            old = self._catalogues.version(version)
        except CatalogueNotFound:
            raise TaskError("version_not_found", "There is no such version.") from None
        before = self._catalogues.current()
        restored = self.imports.restore(version, key)
        changed = changes(before, old).to_document()
        return {
            "version": restored,
            "restored": version,
            "changes": {each: len(listed) for each, listed in changed.items()},
        }

    def versions(self) -> Document:
        """See `agent.catalogue_versions`."""
        current = self._catalogues.current().version
        with store_errors():
            found = list(
                self._database["catalogues"]
                .find({"_id": {"$gt": 0}}, {"source_key": 1, "published_at": 1})
                .sort("_id", -1)
                .limit(VERSIONS_SHOWN)
            )
        return {
            "current": current,
            "versions": [
                {
                    "version": each["_id"],
                    "source": each["source_key"],
                    "published_at": each["published_at"].isoformat(),
                }
                for each in found
            ],
        }

    # -- what leaves, and what is asked --------------------------------------------------

    def tell_quotes(self, limit: int) -> Document:
        """See `leaving.tell_quotes`."""
        return dict(tell_quotes(self._quotes, self._outbox, self.definitions, limit))

    def _answering(self) -> MercadoLibre | None:
        questions = self.definitions.questions
        return None if questions is None else self.seller(questions.account)

    def take_questions(self, limit: int) -> Document:
        """Accept what MercadoLibre's buyers ask as messages, each question in a session of its
        own, once. Returns {questions, accepted, postponed}."""
        seller = self._answering()
        asked = accepted = 0
        postponed = None
        try:
            for question in seller.unanswered() if seller is not None else ():
                if asked == limit:
                    break
                asked += 1
                accepted += self._take_question(question)
        except RetryLater as later:
            # The next pass is near; one that waited would only be one more.
            postponed = str(later.facts.get("reason", later.code))
        return {"questions": asked, "accepted": accepted, "postponed": postponed}

    def _take_question(self, question: Document) -> bool:
        number, text = str(question.get("id", "")), str(question.get("text") or "").strip()
        if not number.isdecimal() or not text:
            return False
        session_id = question_session(number, self._sign)
        wanted = Request(
            type="process_message",
            payload={
                "session_id": session_id,
                "message": text[:MAX_ANSWER_CHARS],
                "channel": MERCADOLIBRE,
            },
            caller=MERCADOLIBRE,
            idempotency_key=number,
            ordering_key=ordering_key(session_id),
        )
        if self._tasks.by_idempotency_key(wanted) is not None:
            return False
        session = self._sessions.open(
            session_id, None, caller=MERCADOLIBRE, channel=MERCADOLIBRE, trusted=True
        )
        if session.id != session_id or session.committed is not None:
            # It was answered before its task was forgotten.
            return False
        try:
            _, new = self._coordinator.submit(wanted)
        except StoreUnavailable:
            raise
        except OrchestratorError as error:
            log.warning("sync.question_postponed", code=error.code)
            return False
        return new

    # -- people --------------------------------------------------------------------------

    def resolve(self, conflict_id: str, winner: Winner, task_id: str, by: str) -> Document:
        """See `agent.resolve_sync_conflict`."""
        conflict = self.store.open_conflict(conflict_id)
        name = conflict["sync"]
        sync = self.definitions.syncs.get(name)
        if sync is None:
            raise TaskError("no_such_sync", "The settings file names no such sync.", sync=name)
        run = Run(task_id, name, False, False, "running", 0, None, {}, self._clock.now())
        running = self._running(name, sync, run)
        running.resolve(conflict, winner)
        if winner == "source" and isinstance(sync.target, sides.CatalogueSide):
            rows, gone = self.imports.staged(task_id)
            # A person has looked at this very row.
            self.imports.bring_in(task_id, rows, gone, sync=name, confirmed=True)
        self.store.decided(conflict_id, winner, by)
        return {"conflict_id": conflict_id, "winner": winner}
