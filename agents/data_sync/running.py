"""One run of a sync: pages from the source, decided row by row, put to the target.

Keeps secret in which order things are written down, so that a run that is killed anywhere goes on
and neither leaves out nor doubles a row: intended, written, settled, checkpoint. Writing to a
target is repeatable by the connector's promise; what is counted is counted with the checkpoint.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.data_sync.connector import Connector, Fault, Page, SourceRow
from agents.data_sync.definitions import Sync
from agents.data_sync.mapping import Mapped, WrongCell, read_row, written_row
from agents.data_sync.reconcile import Decision, decide
from agents.data_sync.store import REPORTED, Document, Link, Run, SyncStore
from orchestrator.logs import log


@dataclass(frozen=True)
class Finished:
    """What a target makes of a run at its end. `held` is why it waits for a person; rows that
    only then turn out to be wrong are in `wrong`, by key."""

    result: Document | None = None
    held: Document | None = None
    wrong: Mapping[str, tuple[WrongCell, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tried:
    """A row that a dry run would write, where it stands in the source, and what it would do."""

    row: Document
    place: int | None
    outcome: str


class Running:
    """A run that goes on until it is done or must stop. `base`, where the target keeps what was
    agreed by itself, gives that for keys; `finish` is the target's end of the run (of a dry one,
    what it would make of these rows), and `restart` takes back what it was given, where the
    source turned out to be another one."""

    def __init__(
        self,
        store: SyncStore,
        name: str,
        sync: Sync,
        source: Connector,
        target: Connector,
        *,
        base: Callable[[list[str]], dict[str, Document]] | None = None,
        finish: Callable[[Run, Mapping[str, Tried]], Finished] | None = None,
        restart: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._name = name
        self._sync = sync
        self._source = source
        self._target = target
        self._base = base
        self._finish = finish
        self._restart = restart
        self._tried: dict[str, Tried] = {}
        self._outgoing = {
            field: column.model_copy(
                update={
                    "source": sync.target_columns.get(field, field),
                    "constant": None,
                    "required": False,
                    "one_of": (),
                    "decimal_comma": False,
                    "format": None,
                    "at_least": None,
                    "at_most": None,
                }
            )
            for field, column in sync.columns.items()
        }

    def go_on(
        self,
        run: Run,
        *,
        should_stop: Callable[[], bool],
        progress: Callable[[Run], None] = lambda run: None,
        confirmed: bool = False,
    ) -> Run:
        """Do what is left of a run, page by page.

        With `confirmed` a person has said that so many rows may be deleted; `progress` hears of
        every page. Where it
        should stop, it is left as it is, for another attempt.

        Raises:
            RetryLater, TaskError: of the connectors; what is done is done.
            RunOvertaken: another attempt is further.
        """
        if run.state != "running":
            return run
        from_its_beginning = run.page == 0
        for page in self._source.read(run.cursor):
            if page.start_over:
                run.start_over()
                self._tried = {}
                if self._restart is not None:
                    self._restart()
            self._page(run, page)
            self._store.page_done(run, page.cursor)
            progress(run)
            log.info("sync.page", sync=run.sync, run=run.id, page=run.page, rows=run.counts["rows"])
            if page.last:
                break
            if should_stop():
                return run
        held = self._deletes(run, confirmed)
        # A dry run that another attempt began does not know what that one has read.
        if held is None and self._finish is not None and (from_its_beginning or not run.dry_run):
            finished = self._finish(run, self._tried)
            run.result, held = finished.result, finished.held
            self._take_back(run, finished.wrong)
        self._store.finish(run, "done" if held is None else "held", held)
        return run

    def resolve(self, conflict: Document, winner: str) -> None:
        """Let a side of a conflict win; repeatable."""
        key, fields = conflict["key"], conflict["fields"]
        if winner == "source":
            wanted = {name: told["source"] for name, told in fields.items()}
            self._target.write({key: self._row(wanted)})
        # Both have seen it: the next run finds nothing new in it.
        self._store.agree(self._name, key, {n: told["source"] for n, told in fields.items()})

    # -- a page ---------------------------------------------------------------------------

    def _page(self, run: Run, page: Page) -> None:
        run.counts["rows"] += len(page.rows)
        rows = self._mapped(run, page)
        keys = list(rows)
        links = self._store.links(self._name, keys)
        intended = {} if run.dry_run else self._store.intended(run)
        rows = self._without_doubles(run, rows, links)
        decided: dict[str, Decision] = {}
        done: dict[str, str] = {}
        fresh: dict[str, tuple[Mapped, SourceRow]] = {}
        for key, row in rows.items():
            link, record = links.get(key), row[0].record
            intent = intended.get(key)
            if intent is not None and intent.row == record:
                # Decided by an attempt that died, which may have written it already.
                decided[key] = intent.decision
            elif (
                link is not None
                and (link.run, link.page) == (run.mark, run.page)
                and not run.dry_run
                and (link.agreed or {}) | record == link.agreed
            ):
                done[key] = link.outcome
            else:
                fresh[key] = row
        decided |= self._decisions(run, fresh, links)
        self._apply(run, decided, rows, links)
        for outcome in done.values():
            run.counts[outcome] += 1

    def _mapped(self, run: Run, page: Page) -> dict[str, tuple[Mapped, SourceRow]]:
        rows: dict[str, tuple[Mapped, SourceRow]] = {}
        spoilt = []
        for n, row in enumerate(page.rows):
            place = f"page {run.page + 1}, row {n + 1}" if row.place is None else row.place
            mapped = read_row(row.values, place, self._sync.columns, self._sync.key)
            if mapped.wrong or mapped.key is None:
                self._note_wrong(run, mapped.wrong)
                if mapped.key is not None:
                    spoilt.append(mapped.key)
            elif mapped.key in rows and row.place is not None:
                self._double(run, mapped, row)
            else:
                # Where rows have no place of their own, pages shift: the later one is newer.
                rows[mapped.key] = (mapped, row)
        if not run.dry_run:
            self._store.came(run, [key for key in spoilt if key not in rows])
        return rows

    def _without_doubles(
        self, run: Run, rows: Mapping[str, tuple[Mapped, SourceRow]], links: Mapping[str, Link]
    ) -> dict[str, tuple[Mapped, SourceRow]]:
        kept = {}
        for key, (mapped, row) in rows.items():
            link = links.get(key)
            before = link is not None and link.run == run.mark and (link.page or 0) < run.page
            if before and row.place is not None:
                self._double(run, mapped, row)
            else:
                kept[key] = (mapped, row)
        return kept

    def _double(self, run: Run, mapped: Mapped, row: SourceRow) -> None:
        column = self._sync.columns[self._sync.key].source or self._sync.key
        reason = "comes more than once in the source"
        self._note_wrong(run, (WrongCell(row.place or 0, column, mapped.key or "", reason),))

    def _decisions(
        self,
        run: Run,
        rows: Mapping[str, tuple[Mapped, SourceRow]],
        links: Mapping[str, Link],
    ) -> dict[str, Decision]:
        if not rows:
            return {}
        keys = list(rows)
        readable = self._target.abilities.looks_up
        current = self._target.current(keys) if readable else {}
        bases = self._base(keys) if self._base is not None else None
        decided = {}
        for key, (mapped, row) in rows.items():
            link = links.get(key)
            agreed = link.agreed if link else None
            if bases is not None:
                agreed = bases.get(key)
                if agreed is not None and link is not None:
                    agreed = agreed | link.resolved
            # What cannot be read is taken to be as it was left.
            there = None if readable else agreed
            changed_at = None
            if key in current:
                there = self._read_back(current[key])
                changed_at = current[key].get("@changed_at")
            decision = decide(
                mapped.record,
                there,
                agreed,
                rule=self._sync.conflicts,
                source_is_ours=self._sync.source_is_ours,
                source_at=row.changed_at,
                target_at=changed_at,
            )
            decided[key] = decision
            if decision.disputed:
                self._conflict(run, key, decision, mapped.record, there, agreed)
        return decided

    def _conflict(
        self,
        run: Run,
        key: str,
        decision: Decision,
        source: Document,
        target: Mapping[str, Any] | None,
        agreed: Mapping[str, Any] | None,
    ) -> None:
        run.counts["conflicts"] += 1
        if run.dry_run:
            return
        fields = {
            name: {
                "agreed": (agreed or {}).get(name),
                "source": source[name],
                "target": (target or {}).get(name),
            }
            for name in decision.disputed
        }
        self._store.conflict(run, key, self._sync.conflicts, decision.winner, fields)

    def _apply(
        self,
        run: Run,
        decided: Mapping[str, Decision],
        came: Mapping[str, tuple[Mapped, SourceRow]],
        links: Mapping[str, Link],
    ) -> None:
        places = {key: row.place for key, (_, row) in came.items()}
        writing = {key: each for key, each in decided.items() if each.write}
        refused: dict[str, Fault] = {}
        if run.dry_run:
            self._tell(run, writing)
            if self._finish is not None:
                self._tried |= {
                    key: Tried(self._row(each.write), places.get(key), each.outcome)
                    for key, each in writing.items()
                }
        else:
            self._store.intend(run, writing, {key: came[key][0].record for key in writing})
            if writing:
                rows = {key: self._row(each.write) for key, each in writing.items()}
                refused = self._target.write(rows)
            taken = {key: each for key, each in decided.items() if key not in refused}
            self._store.settle(run, taken, links, places)
            # What was agreed on with those before stays.
            self._store.came(run, list(refused))
            self._refusals(run, refused, places)
        for key, decision in decided.items():
            if key not in refused:
                run.counts[decision.outcome] += 1

    def _row(self, record: Mapping[str, Any]) -> Document:
        flat = self._sync.target.type == "google_sheet"
        return written_row(dict(record), self._outgoing, flat=flat)

    def _read_back(self, values: Mapping[str, Any]) -> Document:
        """What the target has, as a record, so that it can be compared; a cell that is no such
        thing there stays out, and so differs."""
        return read_row(values, 0, self._outgoing, key="").record

    # -- what is told ---------------------------------------------------------------------

    def _note_wrong(self, run: Run, wrong: tuple[WrongCell, ...]) -> None:
        run.counts["wrong"] += len({cell.row for cell in wrong})
        room = REPORTED - len(run.wrong)
        run.wrong += [cell.to_document() for cell in wrong[: max(room, 0)]]

    def _take_back(self, run: Run, wrong: Mapping[str, tuple[WrongCell, ...]]) -> None:
        """Count rows as wrong that were counted as written."""
        links = {} if run.dry_run else self._store.links(self._name, list(wrong))
        for key, cells in wrong.items():
            outcome = self._tried[key].outcome if run.dry_run else links[key].outcome
            run.counts[outcome] -= 1
            self._note_wrong(run, cells)
        run.changes = [each for each in run.changes if each["key"] not in wrong]

    def _refusals(
        self, run: Run, refused: Mapping[str, Fault], places: Mapping[str, int | None]
    ) -> None:
        run.counts["refused"] += len(refused)
        for key, fault in refused.items():
            if len(run.wrong) < REPORTED:
                place = places.get(key) or key
                run.wrong.append(WrongCell(place, fault.column, key, fault.reason).to_document())

    def _tell(self, run: Run, writing: Mapping[str, Decision]) -> None:
        for key, decision in writing.items():
            if len(run.changes) < REPORTED:
                run.changes.append({"key": key, "does": decision.outcome, "fields": decision.write})

    # -- the end --------------------------------------------------------------------------

    def _deletes(self, run: Run, confirmed: bool) -> Document | None:
        """Delete what the source has no more, if that was asked for; why not, where a person has
        to say so first."""
        if not (self._sync.deletes and self._source.abilities.complete):
            return None
        if run.counts["rows"] == 0:
            # The source is as it was.
            return None
        gone = [] if run.dry_run else self._store.gone(run)
        if not gone:
            return None
        known = self._store.linked(self._name)
        share_pct = 100 * len(gone) / known
        if share_pct > self._sync.max_gone_pct and not confirmed:
            return {
                "code": "too_many_gone",
                "detail": "The source lacks more rows than may be deleted without a word.",
                "gone": len(gone),
                "known": known,
            }
        for start in range(0, len(gone), REPORTED):
            some = gone[start : start + REPORTED]
            self._target.delete(some)
            self._store.unlink(self._name, some)
            run.counts["deleted"] += len(some)
        return None
