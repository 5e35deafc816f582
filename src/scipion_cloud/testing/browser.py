"""Debian's Chromium, driven by Playwright, a person's browser in tests and for the docs' pictures."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

_ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# whether the desktop shows finished boxes: Scipion paints them in this green
GREEN_BOXES = """() => {
  const canvas = document.querySelector("canvas");
  if (!canvas || !canvas.width) return false;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let green = 0;
  for (let i = 0; i < data.length; i += 4)
    if ([0xD2, 0xF5, 0xCB].every((level, k) => Math.abs(data[i + k] - level) < 8)) green++;
  return green > 2000;
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser. As root it cannot sandbox itself; it only ever sees our own pages."""
    arguments = [*_ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    expect.set_options(timeout=60_000)  # a machine may be busy; what is there is seen at once all the same
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def watch(page: Page) -> list[str]:
    """Collects what a healthy page never has: script errors and violations of the content security policy."""
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))

    def console(message: ConsoleMessage) -> None:
        if message.type == "error":
            troubles.append(f"{message.text} ({message.location['url']})")

    page.on("console", console)
    return troubles
