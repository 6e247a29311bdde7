"""The pages in a real browser: no complaint, no overflow, nothing loaded, usable by keyboard.

Needs Debian's chromium and the packages of the extra `browser`; `make test` installs both.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from farm.model import Verdict
from farm.report import write_reports
from farm.report.night import write_night_report
from farm.signoff.bundle import write_bundle
from farm.signoff.clauses import decide
from farm.signoff.facts import facts_of_folder
from farm.top.page import write_pages
from tests.history.nights import Shape
from tests.history.nights import make_night as night_of_values
from tests.signoff.runs import TODAY, policy, write_run
from tests.top.nights import hostile_night

from .nights import Board, bench_lost, flipped, hole, make_night, stored_night, truncated
from .test_night import LONG
from .test_report import HOSTILE, cycle, run_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

PHONE, LAPTOP = 390, 1440
# Wider than the window, but not inside of what scrolls by itself.
OVERFLOWING = """
width => [...document.querySelectorAll('body *')]
  .filter(e => e.getBoundingClientRect().right > width + 1 && !e.closest('.scroll, pre, .sr'))
  .map(e => e.outerHTML.slice(0, 120))
"""
OUTLINED = """
() => {
  const e = document.activeElement, style = getComputedStyle(e);
  return {tag: e.tagName, text: e.textContent.trim().slice(0, 40), href: e.getAttribute('href'),
          outline: parseFloat(style.outlineWidth) * (style.outlineStyle === 'none' ? 0 : 1)};
}
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind of page: of a night that went wrong, of a large one, of a run, and the index."""
    nights = tmp_path_factory.mktemp("out") / "nights"
    good = [Board("raw", "virtual"), Board("elf-ecc16", "virtual-ecc16")]
    make_night(nights, "20260101-200000-aaaa", good)
    bad = make_night(
        nights,
        "20260102-200000-bbbb",
        [
            Board("raw", "virtual", {2: truncated("panicdump-sample.3", 4)}),
            Board("elf-ecc16", "virtual-ecc16", {1: flipped("panicdump-sample.1", 5)}),
            Board("elf", LONG, {1: bench_lost}, set_aside=HOSTILE[0]),
        ],
        holes=(hole("virtual"), hole("virtual-ecc16", HOSTILE[1], HOSTILE[0])),
        run_reports=True,
    )
    large = stored_night(nights, *night_of_values(9, Shape(boards=4, kernels=2, scenarios=30)))
    for night in (nights / "20260101-200000-aaaa", bad, large):
        write_night_report(night, None)
    cells = bad / "report" / "cells"
    run = tmp_path_factory.mktemp("run")
    verdicts = [Verdict.PASS, Verdict.FAIL, Verdict.ERROR, Verdict.SKIP]
    hostile = [cycle(n, one, name=HOSTILE[0]) for n, one in enumerate(verdicts, 1)]
    report, _ = write_reports(run, run_of(*hostile))

    live = tmp_path_factory.mktemp("live") / "top.html"
    write_pages(hostile_night(live.parent / "nights" / "20260103-200000-cccc"), live, 60)
    # GO and NO-GO, with waivers, holes, growth, and names from elsewhere.
    runs = tmp_path_factory.mktemp("signoff")
    write_run(runs / "run-0", build="11" * 20)
    write_run(runs / "run-1", ("sysrq-c",) * 4 + (HOSTILE[1],), virtual=True, broken=[2], large=512)
    signed = {
        "sign-off GO": policy(kernel={"build_id": "11" * 20}),
        "sign-off NO-GO": policy(
            allow_virtual=True,
            drivers=["panicdump-sample", HOSTILE[0], LONG],
            growth={"baseline": {"build_id": "11" * 20}, "max_percent": 1},
            required=[
                {
                    "boards": ["board", LONG],
                    "scenarios": ["sysrq-c", HOSTILE[1]],
                    "repeats": 9,
                    "channels": ["pstorefs", "sahara", "firehose"],
                }
            ],
            waivers=[
                {
                    "clause": "growth",
                    "driver": "panicdump-sample",
                    "owner": HOSTILE[0],
                    "reason": LONG,
                    "expires": "2030-01-01",
                }
            ],
        ),
    }
    (runs / "policy.yaml").write_text("x")
    facts = facts_of_folder(runs)
    for name, rule in signed.items():
        decision = decide(rule, facts, TODAY)
        write_bundle(rule, runs / "policy.yaml", decision, run / name, hashes=(), source=str(runs))

    def cell(text: str) -> Path:
        return next(p for p in sorted(cells.iterdir()) if text in p.read_text(encoding="utf-8"))

    return {
        "night": bad / "report" / "index.html",
        "large night": large / "report" / "index.html",
        "truncated": cell("are missing here"),
        "channels differ": cell("they differ"),
        "bench": cell("the serial line was lost"),
        "all nights": nights / "index.html",
        "run": report,
        "live": live,
        "live, still": live.with_name("top-still.html"),
        **{name: run / name / "signoff.html" for name in signed},
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium is not None, "chromium is missing: `make test-packages` installs it"
    with sync_playwright() as playwright:
        # Chromium's sandbox needs a user that is not root.
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def axe() -> str:
    import axe_playwright_python

    source = Path(axe_playwright_python.__file__).with_name("axe.min.js")
    return source.read_text(encoding="utf-8")


KINDS = (
    *("night", "large night", "truncated", "channels differ", "bench", "all nights", "run"),
    *("live", "live, still", "sign-off GO", "sign-off NO-GO"),
)


def opened(context: BrowserContext, path: Path) -> tuple[Page, list[str]]:
    """The page, and what it complained of or tried to load."""
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith("file:") else complaints.append(request.url),
    )
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.goto(path.as_uri())
    return page, complaints


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_complains_loads_or_overflows(
    browser: Browser, pages: dict[str, Path], kind: str
) -> None:
    with browser.new_context(viewport={"width": LAPTOP, "height": 900}) as context:
        page, complaints = opened(context, pages[kind])
        # The style has come with the page or from beside it.
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.card')).paddingTop") != "0px"
        )
        for width in (LAPTOP, PHONE):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, kind
            assert page.evaluate(OVERFLOWING, width) == []
        assert complaints == []
        assert page.evaluate("document.querySelectorAll('script, img, iframe').length") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_serious(
    browser: Browser, pages: dict[str, Path], axe: str, kind: str
) -> None:
    # The page's own policy would keep the checker's script out.
    with browser.new_context(bypass_csp=True) as context:
        page, _ = opened(context, pages[kind])
        # One folded part of each kind is enough, and quick.
        page.evaluate(
            "[...document.querySelectorAll('details')].slice(0, 6).map(e => e.open = true)"
        )
        page.evaluate("[...document.querySelectorAll('details')].slice(-3).map(e => e.open = true)")
        page.evaluate(axe)
        for width, scheme in ((LAPTOP, "light"), (PHONE, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            asked: Any = scheme
            page.emulate_media(color_scheme=asked)
            found: dict[str, Any] = page.evaluate(
                "rules => axe.run(document, {preload: false, resultTypes: ['violations'], rules})",
                # It links to the page that stands still, which is how one stops it.
                {"meta-refresh": {"enabled": kind != "live"}},
            )
            serious = [
                (one["id"], one["nodes"][0]["html"][:160])
                for one in found["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], (kind, scheme)


@pytest.mark.parametrize("kind", ["night", "sign-off NO-GO"])
def test_dark_is_dark_and_paper_is_white(
    browser: Browser, pages: dict[str, Path], kind: str
) -> None:
    with browser.new_context(color_scheme="dark") as context:
        page, _ = opened(context, pages[kind])
        background = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(background) == "rgb(17, 21, 27)"
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(background) == "rgb(255, 255, 255)"
        assert len(page.pdf()) > 10_000


def test_a_keyboard_reaches_everything(browser: Browser, pages: dict[str, Path]) -> None:
    with browser.new_context(viewport={"width": LAPTOP, "height": 900}) as context:
        page, _ = opened(context, pages["night"])
        page.keyboard.press("Tab")
        assert page.evaluate(OUTLINED)["text"] == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        focusable = page.evaluate(
            "[...document.querySelectorAll('main a, main summary, main [tabindex=\"0\"]')]"
            ".filter(e => e.checkVisibility()).length"
        )
        seen: list[dict[str, Any]] = []
        for _ in range(focusable):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(OUTLINED))
        assert all(one["outline"] >= 2 for one in seen), seen
        cells = [one for one in seen if (one["href"] or "").startswith("cells/")]
        assert len({one["href"] for one in cells}) == 5
        # One step from the matrix to the evidence.
        page.evaluate("document.querySelector('.grid a.FAIL').focus()")
        page.keyboard.press("Enter")
        page.wait_for_url("**/cells/*.html")
        assert page.evaluate("document.querySelectorAll('pre mark, pre .hit').length") > 0
