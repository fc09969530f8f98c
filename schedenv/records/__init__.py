"""The record store and what it exports to."""

from schedenv.records.archive import Archive, Selection
from schedenv.records.record import Record, Run
from schedenv.records.store import RecordStore, RunRecords

__all__ = ["Archive", "Record", "RecordStore", "Run", "RunRecords", "Selection"]
