"""Pages are tested in a real browser."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver


def test_the_browser_shows_a_page(browser: "WebDriver") -> None:
    browser.get("data:text/html,<title>a page</title>")
    assert browser.title == "a page"
