"""What a sign-off asks of a history, on every database that one can be kept in."""

from tests.history.conftest import history, postgres, url

__all__ = ["history", "postgres", "url"]
