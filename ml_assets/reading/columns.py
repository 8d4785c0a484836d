"""The columns a pipeline can speak of, and what each is made of."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ml_assets.features.module import FeatureFunction
from ml_assets.reading.draft import Draft
from ml_assets.spec.data import ColumnSpec, SideTableSpec


@dataclass(frozen=True, kw_only=True)
class SideColumn:
    """One column of a side table, under the name that feature functions see.

    Attributes:
        table: Name of the table.
        column: Its name there.
        spec: Its declaration.
        found_by: Source columns that decide which row of the table is joined.
    """

    table: str
    column: str
    spec: ColumnSpec
    found_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Source columns, side-table columns and feature functions of one pipeline.

    Attributes:
        source: Source columns by name.
        side: Side-table columns by the name `<table>_<column>`.
        functions: Feature functions by name.
        inputs_known: Whether `source` and `side` are complete; if not, an unknown name proves nothing.
        functions_known: Whether the feature module could be loaded.
        after_event: Source and side-table columns declared to be known only after the event.
    """

    source: Mapping[str, ColumnSpec]
    side: Mapping[str, SideColumn]
    functions: Mapping[str, FeatureFunction]
    inputs_known: bool
    functions_known: bool
    after_event: frozenset[str]

    @property
    def known(self) -> bool:
        """Whether every column is known, so that a name found nowhere is wrong."""
        return self.inputs_known and self.functions_known

    def names(self) -> list[str]:
        """Return all names: feature functions, then source columns, then side-table columns."""
        return [*self.functions, *self.source, *self.side]

    def __contains__(self, name: str) -> bool:
        """Whether a column of any kind has this name."""
        return name in self.functions or name in self.source or name in self.side

    def made_of(self, name: str) -> tuple[str, ...]:
        """Return the columns that a column is directly made of; a source column of none."""
        if name in self.source:
            return ()
        if name in self.functions:
            return self.functions[name].parameters
        return self.side[name].found_by if name in self.side else ()

    def declares_past(self, name: str) -> bool:
        """Return whether a column is a function that is marked `@reads_past`."""
        return name not in self.source and name in self.functions and self.functions[name].reads_past

    def path(self, start: str, is_end: Callable[[str], bool]) -> tuple[str, ...] | None:
        """Return the first path from a column down to one that `is_end` holds for, not through `@reads_past`.

        The path starts with `start` and has at least two columns unless `start` is itself such a column.
        """
        waiting: list[tuple[str, ...]] = [(start,)]
        seen: set[str] = set()
        while waiting:
            trail = waiting.pop(0)
            name = trail[-1]
            if is_end(name):
                return trail
            if name in seen or self.declares_past(name):
                continue
            seen.add(name)
            waiting.extend((*trail, part) for part in self.made_of(name))
        return None

    def inputs_of(self, names: Iterable[str]) -> frozenset[str]:
        """Return the source and side-table columns that columns are made of, directly or not."""
        waiting, seen = list(names), set[str]()
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(self.made_of(name))
        return frozenset(name for name in seen if name in self.source or name in self.side)

    def cycles(self) -> Iterator[tuple[str, ...]]:
        """Yield each cycle of feature functions once, its first function repeated at the end."""
        done: set[str] = set()
        for start in self.functions:
            yield from self._cycles_from(start, done)

    def _cycles_from(self, start: str, done: set[str]) -> Iterator[tuple[str, ...]]:
        # A stack of iterators rather than recursion: the depth is the author's, not Python's.
        trail: list[str] = []
        pending = [iter((start,))]
        while pending:
            name = next(pending[-1], None)
            if name is None:
                pending.pop()
                if trail:
                    done.add(trail.pop())
            elif name in trail:
                yield (*trail[trail.index(name) :], name)
            elif name not in done and name in self.functions and name not in self.source:
                trail.append(name)
                pending.append(iter(self.functions[name].parameters))


def columns_of(draft: Draft, functions: Mapping[str, FeatureFunction] | None) -> Columns:
    """Return the columns of a description.

    Args:
        draft: The description.
        functions: Feature functions, or None when their module could not be loaded.
    """
    source = draft.spec.source.columns if draft.present("source", "columns") else {}
    tables = dict(draft.entries("source", "side_tables"))
    side = {
        f"{table}_{column}": SideColumn(table=table, column=column, spec=spec, found_by=_found_by(draft, entry))
        for table, entry in tables.items()
        for column, spec in entry.columns.items()
    }
    late = {name for name, spec in draft.entries("source", "columns") if spec.known == "after_event"}
    late |= {name for name, column in side.items() if column.spec.known == "after_event"}
    sides_known = draft.present("source", "side_tables") and len(tables) == len(draft.spec.source.side_tables)
    return Columns(
        source=source,
        side=side,
        functions=functions or {},
        inputs_known=draft.present("source", "columns") and sides_known,
        functions_known=functions is not None,
        after_event=frozenset(late),
    )


def _found_by(draft: Draft, table: SideTableSpec) -> tuple[str, ...]:
    keys = tuple(table.on)
    if table.as_of is None:
        return keys
    event_time = draft.at("source", "event_time", "column")
    time = table.as_of.row_time or event_time
    return keys if time is None else (*keys, time)
