"""Which page comes after an answer, and the job that asks for it. Pure."""

from fetcher.pagination.paginator import Following, Paginator
from fetcher.pagination.settings import PaginationSettings

__all__ = ["Following", "PaginationSettings", "Paginator"]
