"""The machine forms as files: their names, and what writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from farm.errors import BenchError, UsageError
from farm.export.junit import junit_xml
from farm.export.kcidb import kcidb_json
from farm.export.ktap import ktap_text
from farm.export.mail import mail_text
from farm.export.results import Results, results_of_night, results_of_run
from farm.export.sizes import sizes_csv
from farm.export.squad import squad_files
from farm.judge.run_folder import replace_text
from farm.model import Night, Run

__all__ = ["FORMS", "form_files", "write_forms", "write_night_exports", "write_run_exports"]

FORMS = ("junit", "kcidb", "squad", "csv", "ktap", "mail")

_SINGLE: dict[str, tuple[str, Callable[[Results], str]]] = {
    "junit": ("junit.xml", junit_xml),
    "csv": ("sizes.csv", sizes_csv),
    "ktap": ("results.ktap", ktap_text),
}


def form_files(
    results: Results, form: str, *, before: Results | None = None, origin: str = "panic_farm"
) -> dict[str, str]:
    """The text of each file of ``form``, by its path; raises UsageError for an unknown form."""
    if form in _SINGLE:
        name, write = _SINGLE[form]
        return {name: write(results)}
    if form == "kcidb":
        return {"kcidb.json": kcidb_json(results, origin)}
    if form == "mail":
        return {"mail.txt": mail_text(results, before)}
    if form == "squad":
        return {f"squad/{name}": text for name, text in squad_files(results).items()}
    raise UsageError(f"there is no form {form!r}", f"The forms are: {', '.join(FORMS)}, all.")


def write_forms(
    folder: Path,
    results: Results,
    forms: Iterable[str],
    *,
    before: Results | None = None,
    origin: str = "panic_farm",
) -> tuple[Path, ...]:
    """Write ``forms`` below ``folder``, each file whole or not at all; returns their paths.

    Raises UsageError for an unknown form, BenchError (part ``disk``) when a file cannot be written.
    """
    written = []
    for form in forms:
        for name, text in form_files(results, form, before=before, origin=origin).items():
            path = folder / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BenchError(f"cannot make {path.parent}: {error.strerror}", part="disk") from (
                    error
                )
            replace_text(path, text)
            written.append(path)
    return tuple(written)


def write_run_exports(
    folder: Path, run: Run, forms: Iterable[str] = ("junit",)
) -> tuple[Path, ...]:
    """Write machine forms of a run into its folder; raises as `write_forms` does."""
    return write_forms(folder, results_of_run(run), forms)


def write_night_exports(
    folder: Path,
    night: Night,
    runs: Mapping[str, Run],
    forms: Iterable[str] = ("junit", "mail"),
    *,
    before: Results | None = None,
) -> tuple[Path, ...]:
    """Write machine forms of a night into its folder; ``runs`` by folder as the night names them.

    ``before`` are the results that the mail compares with. Raises as `write_forms` does.
    """
    return write_forms(folder, results_of_night(night, runs), forms, before=before)
