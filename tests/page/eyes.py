"""A person at the page: what they see, click and type."""

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.accounts.people import PASSWORD
from tests.page.site import Owner
from tests.waiting import until

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
WIDE, PHONE = (1360, 900), (390, 844)


class Page:
    """One tab. Everything it does is in the tab that is in front; `front` brings it there."""

    def __init__(self, browser: "WebDriver", origin: str) -> None:
        self.browser, self.origin = browser, origin
        self.tab = browser.current_window_handle

    def front(self) -> "Page":
        self.browser.switch_to.window(self.tab)
        return self

    def open(self, path: str = "/") -> "Page":
        self.browser.get(f"{self.origin}{path}")
        return self

    def new_tab(self, origin: str = "") -> "Page":
        self.browser.switch_to.new_window("tab")
        return Page(self.browser, origin or self.origin)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def later(self, script: str, *arguments: Any) -> Any:
        """What the promise of `script`, an expression, gives."""
        body = f"const done = arguments[arguments.length - 1]; ({script}).then(done, (e) => done(`failed: ${{e}}`))"
        return self.browser.execute_async_script(body, *arguments)

    def until(self, expression: str, seconds: float = 30) -> Any:
        """Waits for a JavaScript expression to be true; what it gave."""
        return until(lambda: self.js(f"return {expression}"), seconds, lambda: f"{expression}\n{self.text()}")

    def sees(self, text: str, within: str = "body", seconds: float = 30) -> None:
        self.until(f"document.querySelector({within!r})?.innerText.includes({text!r})", seconds)

    def text(self, within: str = "body") -> str:
        return str(self.js("return document.querySelector(arguments[0]).innerText", within))

    def texts(self, css: str) -> list[str]:
        return list(self.js("return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)", css))

    def click(self, css: str) -> None:
        self.until(f"document.querySelector({css!r})?.checkVisibility()")
        self.browser.find_element(By.CSS_SELECTOR, css).click()

    def type(self, css: str, text: str) -> None:
        field = self.browser.find_element(By.CSS_SELECTOR, css)
        field.clear()
        field.send_keys(text)

    def choose(self, label: str, option: str) -> None:
        """An option of the select with that label."""
        field = self.labelled(label)
        field.find_element(By.XPATH, f".//option[.={option!r}]").click()

    def labelled(self, label: str) -> Any:
        xpath = f"//label[starts-with(normalize-space(.), {label!r})]"
        identity = self.browser.find_element(By.XPATH, xpath).get_attribute("for")
        return self.browser.find_element(By.ID, str(identity))

    def fill(self, label: str, text: str) -> None:
        field = self.labelled(label)
        field.clear()
        field.send_keys(text)

    def go(self, place: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, f'#places a[href="#/{place}"]').click()

    def sign_in(self, name: str) -> "Page":
        self.open()
        self.until("document.querySelector('.way-in')")
        self.type("[name=username]", name)
        self.type("[name=password]", PASSWORD)
        self.click(".way-in [type=submit]")
        return self.live()

    def enter(self, owner: Owner) -> "Page":
        """As one who signed in before: with the cookie, and the note that there is a session."""
        cookie = {"name": "refresh", "value": owner.browsers, "url": f"{self.origin}/api/v1/auth/"}
        flags = {"path": "/api/v1/auth/", "secure": True, "httpOnly": True, "sameSite": "Strict"}
        self.browser.execute_cdp_cmd("Network.setCookie", cookie | flags)
        self.open("/health/live").js("localStorage.setItem('session', arguments[0])", owner.id)
        return self.open().live()

    def live(self) -> "Page":
        """Waits until the stream is open and the form is there."""
        self.until("document.querySelector('#connection').textContent === 'Live'")
        self.until("!document.querySelector('.new form')?.hidden")
        return self

    def press(self, *keys: str) -> None:
        ActionChains(self.browser).send_keys(*keys).perform()

    def tab_to(self, css: str) -> None:
        """Presses Tab until that has the focus."""
        for _ in range(80):
            if self.js("return document.activeElement.matches(arguments[0])", css):
                return
            self.press(Keys.TAB)
        raise AssertionError(f"Tab never reaches {css}")

    def focus(self) -> str:
        return str(self.js("return document.activeElement.tagName"))

    def emulate(self, size: tuple[int, int] = WIDE, *, dark: bool = False) -> None:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size is PHONE}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def network(self, *, on: bool) -> None:
        self.browser.execute_cdp_cmd("Network.enable", {})
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": not on, **speed})

    def found_by_axe(self, but: Sequence[str] = (), rules_off: Sequence[str] = ()) -> list[str]:
        """What axe-core finds wrong with what is shown, without what is inside of `but`, by all rules but some."""
        if not self.js("return Boolean(window.axe)"):
            self.js(AXE)
        found = self.later(
            "axe.run({ include: [['html']], exclude: arguments[0] },"
            " { resultTypes: ['violations'], rules: arguments[1] })",
            [[css] for css in but],
            {rule: {"enabled": False} for rule in rules_off},
        )
        return [f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}" for one in found["violations"]]

    def errors(self) -> list[str]:
        """What the console has as errors, but for answers that the test provokes (400, 401 ..)."""
        lines = [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        return [line for line in lines if "Failed to load resource" not in line]

    def addresses(self) -> list[str]:
        return list(self.js("return performance.getEntriesByType('resource').map((entry) => entry.name)"))
