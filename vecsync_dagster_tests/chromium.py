"""A headless Chromium that looks at Dagster's pages, for tests and for the pictures in the docs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from playwright.sync_api import ConsoleMessage, Page, Response, sync_playwright

__all__ = ["PROGRAM", "Window", "chromium"]

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""The system's own, because Playwright's is a download; None where there is none."""
PATIENCE_MS = 60_000
# Nothing of this needs a screen, a GPU, or anybody beyond this machine.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_DOTS = "[data-tooltip] + div[style*=border-radius]"
_ICONS = """rows => Object.fromEntries(rows.map(row =>
    [row.querySelector("[title]").title, row.querySelector("[role=img]").ariaLabel]))"""
_COLOURS = """dots => Object.fromEntries(dots.map(dot =>
    [dot.previousElementSibling.dataset.tooltip, /accent-(\\w+)/.exec(dot.getAttribute("style"))[1]]))"""


@dataclass
class Window:
    """`page`: Playwright's. `problems`: errors in its console, exceptions, and requests that failed."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("response", self._answered)

    def open(self, path: str, width: int = 1400, height: int = 800) -> Page:
        """A page of Dagster's UI."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.goto(self.url + path)
        return self.page

    def open_checks(self, entity: str, asset: str, check: str = "identity", width: int = 1400) -> Page:
        """The *Checks* tab of an asset, with one check chosen, when its results are there."""
        page = self.open(f"/assets/{entity}/{asset}?view=checks&checkDetail={check}", width)
        page.get_by_text("Evaluation result").wait_for()
        return page

    def icons(self) -> dict[str, str]:
        """The icon beside each check of the list: `check_circle`, `cancel`, `warning`..."""
        return cast("dict[str, str]", self.page.eval_on_selector_all("[class*=checkRow]", _ICONS))

    def open_grid(self, entity: str, asset: str, check: str = "identity", width: int = 1400) -> Page:
        """The *Partitions* tab of a check, with the dots beside collections and tenants."""
        page = self.open_checks(entity, asset, check, width)
        page.get_by_role("tab", name="Partitions").last.click()  # the first one is the asset's own
        page.locator(_DOTS).first.wait_for()
        return page

    def colours(self) -> dict[str, str]:
        """The colour of each collection's and tenant's dot."""
        return cast("dict[str, str]", self.page.eval_on_selector_all(_DOTS, _COLOURS))

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status} of {response.url}")

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")


@contextmanager
def chromium(url: str) -> Iterator[Window]:
    """A window on the webserver at `url`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=list(_FLAGS))
        try:
            yield Window(browser.new_page(), url)
        finally:
            browser.close()
