"""What all nights and runs brought, in a database: SQLite by default, PostgreSQL by URL."""

from farm.history.rows import BoardState, CycleRow, DeviceRow, NightRow, SizePoint
from farm.history.store import History, open_history

__all__ = [
    "BoardState",
    "CycleRow",
    "DeviceRow",
    "History",
    "NightRow",
    "SizePoint",
    "open_history",
]
