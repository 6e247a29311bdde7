"""What nights say of themselves in a few lines, for the index of all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from farm.judge.night_folder import NIGHT_NAME
from farm.model import Frozen, Verdict

__all__ = ["REPORT_FOLDER", "SUMMARY_NAME", "NightSummary", "load_summary", "summaries_of"]

REPORT_FOLDER = "report"
SUMMARY_NAME = "summary.json"


class NightSummary(Frozen):
    """What the index of all nights shows of one; lies beside the night's pages."""

    night_id: str
    plan: str
    started: str
    wall_s: float
    verdict: Verdict
    headline: str
    cells: int
    passed: int
    failed: int
    errors: int
    holes: int
    regressions: int | None
    fixes: int | None
    kernels: tuple[str, ...]
    boards: int
    virtual_boards: int
    set_aside: int


def load_summary(night_dir: Path) -> NightSummary:
    """Read what lies beside a night's pages; raises OSError, ValidationError as they come."""
    file = night_dir / REPORT_FOLDER / SUMMARY_NAME
    return NightSummary.model_validate_json(file.read_text(encoding="utf-8"))


def summaries_of(nights_dir: Path) -> Iterator[tuple[Path, NightSummary | str]]:
    """Give every night below ``nights_dir``, newest first: its summary, or why there is none."""
    for folder in sorted(nights_dir.iterdir(), reverse=True):
        if folder.name.startswith(".") or not (folder / NIGHT_NAME).is_file():
            continue
        try:
            yield folder, load_summary(folder)
        except OSError:
            yield folder, "its report is not written yet: `farm report` makes it"
        except (ValidationError, UnicodeDecodeError):
            yield folder, "its report is damaged: `farm report` writes it again"
