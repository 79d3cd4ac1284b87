"""Chromium and its driver, for tests of pages."""

import os
import shutil

from scripts.place import SetupError
from scripts.servers import packages


def programs() -> tuple[str, str] | None:
    """The browser and its driver, when both are on the PATH."""
    browsers = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    browser = next(filter(None, map(shutil.which, browsers)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def find() -> tuple[str, str]:
    """The browser and its driver, installed by apt-get if need be. Raises SetupError with how to get them."""
    why = None if programs() else packages.why_not() or packages.install("chromium", "chromium-driver")
    found = programs()
    if found is None:
        raise SetupError(
            f"Tests of pages need Chromium and chromedriver. They are not on the PATH; apt-get did not help: {why}. "
            "Install them (Debian: apt-get install chromium chromium-driver)."
        )
    return found


def arguments() -> list[str]:
    """Headless, speaking to nobody but the page; root has no sandbox."""
    quiet = ["background-networking", "component-update", "sync", "quic", "gpu", "dev-shm-usage", "default-apps"]
    flags = ["--headless", "--no-first-run", "--window-size=1280,900", *(f"--disable-{one}" for one in quiet)]
    return [*flags, "--no-sandbox"] if os.geteuid() == 0 else flags
