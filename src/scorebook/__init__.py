"""The publishing side of the book: it runs the chapters, keeps their numbers and builds the site."""

from scorebook.record import paper, record, record_data

__all__ = ["paper", "record", "record_data"]
