"""The record store and what it exports to."""

from schedenv.records.store import Record, RecordStore

__all__ = ["Record", "RecordStore"]
