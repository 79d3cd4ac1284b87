"""For everybody: screen readers, both themes, phones; nothing from elsewhere; quick to show and smooth with 1,000."""

from datetime import timedelta
from itertools import pairwise

import pytest
from django.utils import timezone

from tests.client import Client
from tests.page.eyes import PHONE, WIDE, Page
from tests.page.site import Owner

pytestmark = pytest.mark.django_db  # for its tables

SIZES = pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])


@SIZES
def test_axe_finds_nothing_on_the_way_in(page: Page, size: tuple[int, int]) -> None:
    found = {}
    for dark in (False, True):
        page.emulate(size, dark=dark)
        page.open().until("document.querySelector('.way-in')")
        page.click(".way-in .link")
        page.click(".way-in [type=submit]")
        page.until("document.querySelector('.way-in [aria-invalid]')")
        found[dark] = page.found_by_axe()
    assert found == {False: [], True: []}


@SIZES
def test_axe_finds_nothing_on_any_place_in_either_theme(signed_in: Page, owner: Owner, size: tuple[int, int]) -> None:
    (failed,) = owner.submit({"method": "GET", "url": "http://10.0.0.1/"}, kind="http.call")
    owner.submit({"steps": 6000, "delay_ms": 50}, kind="demo.steps")  # longer than axe takes
    owner.submit(*({"n": n} for n in range(20)))
    owner.submit("later", not_before=(timezone.now() + timedelta(hours=1)).isoformat())
    signed_in.sees("of 6,000", ".running")
    signed_in.sees("Waiting (20)")
    wrong = {}
    for place in ("#/", "#/failed", "#/history", "#/account", f"#/requests/{failed}"):
        signed_in.js("location.hash = arguments[0]", place)
        signed_in.until("!document.querySelector('main .skeleton')?.checkVisibility()")
        for dark in (False, True):
            signed_in.emulate(size, dark=dark)
            wrong[f"{place} {dark}"] = signed_in.found_by_axe()
            assert signed_in.js("return document.documentElement.scrollWidth <= innerWidth"), f"{place} is too wide"
    signed_in.js("location.hash = '#/'")
    signed_in.click("[data-verb=purge]")
    wrong["a dialog"] = signed_in.found_by_axe()
    signed_in.click("dialog [value=yes]")
    signed_in.click(".running [data-verb=cancel]")
    signed_in.sees("Idle", "#state")
    owner.submit(1, kind="page.stuck")
    signed_in.sees("blocks your queue", "section.banner")
    wrong["blocked"] = signed_in.found_by_axe()
    assert {place: found for place, found in wrong.items() if found} == {}
    assert signed_in.errors() == []


def test_each_theme_has_its_own_colours(page: Page) -> None:
    colours = []
    for dark in (False, True):
        page.emulate(dark=dark)
        page.open().until("document.querySelector('.way-in')")
        colours.append(page.js("return getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(244, 246, 248)", "rgb(15, 20, 24)"]


def test_nothing_comes_from_another_host_and_nothing_inline_may_run(signed_in: Page) -> None:
    for place in ("failed", "history", "account"):
        signed_in.go(place)
    addresses = signed_in.addresses()
    assert len(addresses) > 15
    assert [address for address in addresses if not address.startswith(f"{signed_in.origin}/")] == []
    policy = Client().get("/")["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert signed_in.js("return document.querySelectorAll('[style], [onclick], style').length") <= 1  # a row's window
    for way in (
        "document.body.append(tag)",
        "tag.textContent = 'window.ran = 1'",
        "document.body.innerHTML = '<b>x</b>'",
    ):
        refused = signed_in.js(
            f"const tag = document.createElement('script'); try {{ {way} }} catch (e) {{ return e.name }}"
        )
        assert refused == (None if "append" in way else "TypeError")
    assert signed_in.js("return window.ran") is None


def first_paint(page: Page, path: str = "/") -> list[float]:
    """Milliseconds until something is seen, with nothing cached; bytes; files."""
    page.browser.execute_cdp_cmd("Network.clearBrowserCache", {})
    page.open(path).until("performance.getEntriesByName('first-contentful-paint')[0]")
    return list(page.js(
        "const all = [...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')];"
        "return [performance.getEntriesByName('first-contentful-paint')[0].startTime,"
        "all.reduce((sum, one) => sum + one.transferSize, 0), all.length]"
    ))  # fmt: skip


def test_first_paint_within_200_ms_and_less_than_50_kb(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the machine is slower than that for a line of text, it has three times as long as that takes."""
    seen: list[list[float]] = []
    lines: list[float] = []
    while len(seen) < 5 or (min(seen)[0] >= max(200, 3 * min(lines)) and len(seen) < 25):  # others may be busy
        lines.append(first_paint(page, "/health/live")[0])
        seen.append(first_paint(page))
        page.until("document.querySelector('.way-in')")
    paint, size, files = min(seen)
    with capsys.disabled():
        each = sorted(round(one[0]) for one in seen)
        print(
            f"\nfirst paint {paint:.0f} ms (of all: {each}; a line of text: {min(lines):.0f}),"
            f" {size / 1000:.1f} kB in {files} files"
        )
    assert paint < max(200, 3 * min(lines))
    assert 10_000 < max(one[1] for one in seen) < 50_000


FRAMES = """new Promise((done) => {
    const times = [];
    const until = performance.now() + 3000;
    const list = document.querySelector(".window");
    const step = (now) => {
        times.push(now);
        list.scrollTop += 40;
        now < until ? requestAnimationFrame(step) : done(times);
    };
    requestAnimationFrame(step);
})"""


def test_a_thousand_waiting_leave_time_for_60_frames_a_second(
    signed_in: Page, owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted is the main thread's own time for a frame: how many a busy machine shows says nothing about the page."""
    (first,) = owner.submit({"steps": 2000, "delay_ms": 20}, kind="demo.steps")
    for _ in range(2):
        owner.submit(*({"n": n} for n in range(499)))
    signed_in.sees("Waiting (998)")
    rows = signed_in.js("return document.querySelectorAll('.row.waiting').length")
    signed_in.browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    before = busy(signed_in)
    times = signed_in.later(FRAMES)
    each = (busy(signed_in) - before) / len(times) * 1000
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    with capsys.disabled():
        print(f"\n998 waiting: {rows} rows, {each:.1f} ms of work a frame, {len(times) / 3:.0f} frames/s,", end="")
        print(f" half of them within {gaps[len(gaps) // 2]:.1f} ms")
    assert rows < 60
    assert each < 1000 / 60 / 2
    owner.post("queue/purge")
    owner.post(f"requests/{first}/cancel")
    signed_in.sees("Nothing waits", "#waiting")


def busy(page: Page) -> float:
    """Seconds of processor time that the page's main thread has used."""
    found = page.browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))
