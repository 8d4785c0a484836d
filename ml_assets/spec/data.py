"""The part of a pipeline's description about its data: source, partitions, expectations, features, label."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from ml_assets.spec.model import ColumnType, Duration, Identifier, ListOf, SpecModel, TaskType

FileFormat = Literal["csv", "parquet"]


class ColumnSpec(SpecModel):
    """One column of an arriving file."""

    type: ColumnType
    """Type of its values. CSV text that does not parse as this type is refused, with its line."""
    description: str = ""
    """What the column means, for the UI and for readers."""
    unit: str = ""
    """Unit of a number, such as minutes, miles or mph; empty when it has none."""
    nullable: bool = True
    """Whether values may be missing."""
    known: Literal["at_event", "after_event"] = "at_event"
    """When a value is known: at the row's event time, or only later (an arrival delay, a label). A feature may
    read a column known later only when its function is marked `@reads_past`; the label may always read it."""


class EventTimeSpec(SpecModel):
    """When a row happened; it decides the row's partition, its splits and what may be joined to it."""

    column: str
    """Source column of type timestamp or date."""
    timezone: str = "UTC"
    """IANA time zone whose calendar decides partitions and days, such as America/New_York. Timestamps without
    an offset are read as `stored_in`."""
    stored_in: str = "UTC"
    """IANA time zone of timestamps that carry no offset."""


class AsOfSpec(SpecModel):
    """Take the latest row of the side table known at or before the row's time, never a later one."""

    time: str
    """Timestamp column of the side table: when its row was known."""
    row_time: str | None = None
    """Source timestamp column to look from; the event time when absent."""
    tolerance: Duration | None = None
    """How old the latest known row may be; unlimited when absent."""


class SideTableSpec(SpecModel):
    """A second table that is joined to the rows by key, or as of a time."""

    url: str
    """Path or fsspec URL of one file; a relative path is below the landing zone."""
    format: FileFormat = "csv"
    """How the file is written."""
    columns: Annotated[dict[str, ColumnSpec], Field(min_length=1)]
    """Columns to read. Column `c` of table `t` is offered to feature functions as the parameter `t_c`."""
    on: Annotated[dict[str, str], Field(min_length=1)]
    """Key: source column → column of the side table. With `as_of` these match exactly beside the time."""
    as_of: AsOfSpec | None = None
    """Join in time; without it the key must be unique in the side table."""


class SourceSpec(SpecModel):
    """Where partitions arrive and what their files hold."""

    url: str
    """Pattern of one file per partition: a path below the landing zone or an fsspec URL. `{time}` stands for the
    time partition's key and `{group}` for the group's value, such as flights/{time}_{group}.csv."""
    format: FileFormat = "csv"
    """How the files are written."""
    event_time: EventTimeSpec
    """When a row happened."""
    row_id: Annotated[tuple[str, ...], ListOf, Field(min_length=1)]
    """Columns that together identify a row; they must be unique within a partition."""
    columns: Annotated[dict[str, ColumnSpec], Field(min_length=1)]
    """Columns of a file, by name. A file may hold others; they are not read."""
    combine: dict[str, Literal["sum", "max", "min", "first"]] = Field(default_factory=dict)
    """How rows with the same row id become one: column → rule. Empty: a repeated row id is an error."""
    side_tables: dict[Identifier, SideTableSpec] = Field(default_factory=dict)
    """Tables joined to the rows, by name."""


class GroupSpec(SpecModel):
    """The optional second partition dimension."""

    column: str
    """Source column whose value is the group."""
    values: Annotated[tuple[str, ...], ListOf, Field(min_length=1)]
    """The groups there are."""


class PartitionsSpec(SpecModel):
    """How the pipeline's data are partitioned: along time, and optionally by a group."""

    every: Literal["day", "week", "month", "year"]
    """Length of a time partition."""
    start: Annotated[str, StringConstraints(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")]
    """First partition: 2013 for years, 2013-01 for months, 2013-01-01 for weeks (a Sunday) and days."""
    end: Annotated[str, StringConstraints(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")] | None = None
    """First partition that is no longer part of the pipeline; open-ended when absent."""
    group: GroupSpec | None = None
    """Second dimension; none when absent."""


class ExpectationSpec(SpecModel):
    """One Great Expectations expectation, as that library's JSON writes it."""

    type: str
    """Name, such as expect_column_values_to_be_between."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Its arguments, such as {column: distance, min_value: 0}."""
    severity: Literal["error", "warning"] = "error"
    """A failed error closes the gate of the partition; a failed warning is shown only."""


class ExpectationsSpec(SpecModel):
    """What must hold of every partition before anything downstream may use it."""

    raw_data: Annotated[tuple[ExpectationSpec, ...], ListOf] | str = ()
    """Expectations on the rows that arrived: a list, or the path of a YAML file with one, beside this file."""
    features: Annotated[tuple[ExpectationSpec, ...], ListOf] | str = ()
    """Expectations on the feature table (feature columns, label, event_time, label_time)."""


class FeaturesSpec(SpecModel):
    """Which columns the model sees and where they are computed."""

    module: str = "features.py"
    """Python file beside this one, or an importable module. Each public function returning a Series is a column;
    its parameters are the columns it reads."""
    columns: Annotated[tuple[str, ...], ListOf, Field(min_length=1)]
    """Columns the model is fitted on, in order: feature functions, source columns or side-table columns."""
    history: Annotated[int, Field(ge=0, le=1000)] = 0
    """Earlier time partitions that are read beside a partition's own, for lags and windows that cross its border."""


class LabelSpec(SpecModel):
    """What is predicted, and when it becomes known."""

    column: str
    """Feature function or source column with the label; rows where it is missing are scored but never learned from."""
    task: TaskType
    """binary (0 or 1), multiclass (strings or whole numbers) or regression (numbers)."""
    known_after: Duration | None = None
    """How long after its event time a row's label is known."""
    known_at: str | None = None
    """Feature function or source column with the time at which the label is known, instead of `known_after`."""
    unit: str = ""
    """Unit of a regression label; empty when it has none."""

    @model_validator(mode="after")
    def _one_label_time(self) -> "LabelSpec":
        if (self.known_after is None) == (self.known_at is None):
            raise ValueError("exactly one of known_after (such as 1d) and known_at (a column) must be given")
        return self
