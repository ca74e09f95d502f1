"""Parquet: typed columns, compressed, in files that are whole or nothing. Needs the extra ``parquet`` (pyarrow).

The columns are the fields of the record by their names: ``headers`` a list of structs, times with UTC, ``extracted``
and ``meta`` JSON. A body is binary, so ``body_encoding`` is null. Integers are of 64 bits: one that is longer, which a
server may well claim, is null.

A file is readable by its footer alone, so that no half of one can be: records are kept as drafts until there are
enough for a file (see ``PartFormat``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fetcher.extras import load_extra
from fetcher.fields import known_columns
from fetcher.settings import ByteSize, Settings

if TYPE_CHECKING:
    from fetcher.formats.columns import ParquetFormat

SUFFIXES = (".parquet",)
_MIB = 1024 * 1024


class ParquetConfig(Settings):
    """Columns in files of their own."""

    extras: ClassVar[tuple[str, ...]] = ("parquet",)
    type: Literal["parquet"] = "parquet"
    streams: ClassVar[bool] = False
    part_size: Annotated[ByteSize, Field(gt=0)] = 128 * _MIB
    """Bytes of records from which on a file is written. Compressed it is several times smaller."""
    row_group: Annotated[ByteSize, Field(gt=0)] = 32 * _MIB
    """Bytes of records in a row group, which is what a reader has in memory at a time."""
    partition_by: Literal["none", "date", "host"] = "none"
    """``date`` (of the fetch, in UTC) and ``host`` make folders such as ``host=example.org``, as Hive does, each with a
    file of its own in each part: with very many hosts these are very many small files."""
    columns: Annotated[list[str], Field(min_length=1), AfterValidator(known_columns)] | None = None
    """Which fields of the record, in which order; by default all. A value of `extracted` or `meta` has a column of its
    own as `extracted.price`, `meta.shop`: text, or else JSON, as its type may differ from record to record."""
    codec: Literal["zstd", "snappy", "gzip", "none"] = "zstd"
    """How columns are compressed."""

    @model_validator(mode="after")
    def _partitioned_by_columns(self) -> Self:
        needed = {"none": set(), "host": {"url"}, "date": {"started_at", "finished_at"}}[self.partition_by]
        lacking = sorted(needed.difference(self.columns)) if self.columns is not None else []
        if lacking:
            words = f"partition_by: {self.partition_by} goes by {lacking[0]}, which is not among the columns; add it"
            raise PydanticCustomError("column", "{words}", {"words": words})
        return self

    def build(self) -> ParquetFormat:
        """Return the format. Raises MissingExtraError without pyarrow."""
        load_extra("pyarrow", "parquet", "the format parquet")
        from fetcher.formats.columns import ParquetFormat  # noqa: PLC0415  it imports what may not be there

        return ParquetFormat(
            part_size=self.part_size,
            row_group=self.row_group,
            partition_by=self.partition_by,
            codec=self.codec,
            columns=self.columns,
        )
