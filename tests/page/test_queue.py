"""The page shows a queue as it is and as it moves; what can be done with it can be done there."""

from itertools import pairwise

import pytest
from selenium.webdriver.common.keys import Keys

from queues.limits import deployment
from tests.accounts.people import PASSWORD, at_once
from tests.page.eyes import Page
from tests.page.site import Owner, Site
from tests.waiting import until

pytestmark = pytest.mark.django_db  # for its tables

WAITING = "#waiting .row.waiting .what a"
HOLD_ANSWERS = """
    const released = new Promise((release) => { window.release = release }), ask = window.fetch;
    window.fetch = async (path, options) => {
        const answer = await ask(path, options);
        if (window.away && path.endsWith(window.away)) throw new TypeError("away");
        if (options?.method === "POST" && /retry|pause$/.test(path)) await released;
        return answer;
    }"""
SLOW = {"steps": 200, "delay_ms": 100}


def sequences(texts: list[str]) -> list[int]:
    return [int(text.rpartition("#")[2]) for text in texts]


def test_who_signs_up_sees_their_request_run_to_its_result(page: Page, site: Site) -> None:
    page.open()
    page.click(".way-in .link")
    page.sees("Sign up", ".way-in")
    page.type("[name=username]", f"new-{site.port}")
    page.type("[name=password]", PASSWORD)
    page.click(".way-in [type=submit]")
    page.live().sees("Idle. Nothing waits.")
    page.choose("Kind", "demo.echo")
    page.fill("Payload", '{"hello": "page"}')
    page.click(".new [type=submit]")
    page.sees('{"hello":"page"}', ".row.over")
    page.sees("succeeded", ".row.over .badge")
    page.click(".row.over .what a")
    page.sees('"hello": "page"', "pre")
    page.sees("1. succeeded", ".attempts")
    assert page.errors() == []


def test_the_line_is_shown_in_its_order_with_the_running_ones_progress_and_the_time_to_each_turn(
    signed_in: Page, owner: Owner
) -> None:
    owner.submit(SLOW, kind="demo.steps")
    owner.submit(*({"n": n} for n in range(8)))
    signed_in.sees("of 200", ".running")
    signed_in.until("document.querySelectorAll('.row.waiting').length === 8")
    assert sequences(signed_in.texts(WAITING)) == list(range(2, 10))
    assert signed_in.texts("#waiting .place") == [str(n) for n in range(1, 9)]
    before = signed_in.js("return document.querySelector('.running progress').value")
    signed_in.until(f"document.querySelector('.running progress').value > {before}")
    signed_in.until("document.title.startsWith('(9) Your queue')")
    signed_in.click("#waiting .row.waiting:nth-child(3) [data-verb=cancel]")
    signed_in.until("document.querySelectorAll('.row.waiting').length === 7")
    assert sequences(signed_in.texts(WAITING)) == [2, 3, 5, 6, 7, 8, 9]
    signed_in.click(".running [data-verb=cancel]")
    signed_in.until("document.querySelectorAll('.row.over').length === 9")
    assert sequences(signed_in.texts(".row.over .what a")) == [9, 8, 7, 6, 5, 3, 2, 1, 4]
    owner.submit(SLOW, {"steps": 1}, {"steps": 1}, kind="demo.steps")
    signed_in.sees("in ", "#waiting .row:nth-child(2) .turn")  # its pace is known now


def test_the_time_to_a_turn_counts_no_pause_between_attempts(page: Page) -> None:
    """The head began an hour ago, failed, and does ten steps now. Others take 10 s."""
    script = """
        const store = new Store(), turns = [], now = Date.now();
        store.queue = { eta_seconds: 20, depth: 2, state: "draining", paused: false };
        for (const [attempt, current, seconds] of [[1, 5, 0], [2, 4, 0], [2, 6, 8], [3, 1, 9], [3, 2, 12]]) {
            Date.now = () => now + seconds * 1000;
            const head = { id: "x", sequence: 1, status: "running", attempt, progress: { current, total: 10 },
                started_at: new Date(now - 3600000).toISOString() };
            store.take(head);
            turns.push(Math.round(store.turn(0, head)));
        }
        return turns;"""
    found = page.open().later(f"import('/static/page/store.js').then(({{ Store }}) => {{ {script} }})")
    assert found == [3600, 10, 10, 10, 10]


def test_no_beginning_is_shown_of_an_attempt_that_is_not_the_first(signed_in: Page, owner: Owner) -> None:
    owner.submit({"failures": 20}, kind="demo.flaky")
    signed_in.until("/Attempt ([2-9]|1.) of/.test(document.querySelector('.running').innerText)")
    assert "started" not in signed_in.text(".running")


def test_two_users_side_by_side_each_see_their_own(page: Page, site: Site) -> None:
    ann, bob = site.owner(f"ann-{site.port}"), site.owner(f"bob-{site.port}")
    hers = page.enter(ann)
    his = page.new_tab(site.origin.replace("127.0.0.1", "localhost")).enter(bob)
    ann.submit(SLOW, *[{"steps": 1}] * 5, kind="demo.steps")
    bob.submit("his own")
    his.sees('"his own"', ".row.over")
    assert "demo.steps" not in his.text("main .columns > .stack")
    hers.front().sees("Waiting (5)")
    assert "his own" not in hers.text()
    assert page.errors() == []


def test_pause_resume_and_cancel_all_do_what_they_say(signed_in: Page, owner: Owner) -> None:
    signed_in.click("[data-verb=pause]")
    signed_in.sees("Paused: nothing starts until you resume.", "#state")
    owner.submit(1, 2, 3)
    signed_in.sees("Waiting (3)")
    signed_in.click("[data-verb=purge]")
    signed_in.sees("Cancel 3 requests?", "dialog")
    signed_in.click("dialog [value=no]")
    assert "Waiting (3)" in signed_in.text("#waiting")
    signed_in.click("[data-verb=purge]")
    signed_in.click("dialog [value=yes]")
    signed_in.sees("Nothing waits", "#waiting")
    signed_in.until("document.querySelectorAll('.row.over [data-status=cancelled]').length === 3")
    signed_in.click("[data-verb=pause]")
    signed_in.sees("Idle", "#state")
    assert owner.get("queue")["paused"] is False


def test_a_blocked_queue_says_why_and_goes_on_when_its_head_is_skipped(signed_in: Page, owner: Owner) -> None:
    owner.submit("x", kind="page.stuck")
    owner.submit("behind")
    signed_in.sees("there is no paper in the printer", ".banner.bad")
    signed_in.sees("Nothing runs at the moment.", ".running")
    signed_in.click(".banner [data-verb=retry]")
    signed_in.sees("page.stuck #1 is tried again.")
    signed_in.sees("there is no paper in the printer", ".banner.bad")
    signed_in.click(".banner [data-verb=skip]")
    signed_in.sees('"behind"', ".row.over")
    signed_in.sees("Idle", "#state")


@pytest.mark.parametrize("away", [False, True], ids=["", "and-another-look-fails"])
def test_an_answer_that_comes_late_undoes_nothing_that_the_stream_told_meanwhile(
    signed_in: Page, owner: Owner, away: bool
) -> None:
    (stuck,) = owner.submit("x", kind="page.stuck")
    signed_in.sees("there is no paper in the printer", ".banner.bad")
    signed_in.js(HOLD_ANSWERS)
    tried = len(owner.get(f"requests/{stuck}/attempts"))
    signed_in.click(".banner [data-verb=retry]")
    until(lambda: len(owner.get(f"requests/{stuck}/attempts")) > tried, why="it was tried again")
    until(lambda: owner.get("queue")["state"] == "blocked", why="it blocks again")
    signed_in.sees("there is no paper in the printer", ".banner.bad")
    if away:
        signed_in.js(f"window.away = '/{stuck}'")
    signed_in.js("window.release()")
    signed_in.sees("page.stuck #1 is tried again.")
    signed_in.sees("there is no paper in the printer", ".banner.bad")
    signed_in.click(".banner [data-verb=skip]")
    signed_in.sees("Idle", "#state")


def test_a_late_answer_about_the_queue_undoes_nothing_either(signed_in: Page, owner: Owner) -> None:
    signed_in.js(HOLD_ANSWERS)
    signed_in.click("[data-verb=pause]")
    signed_in.sees("Paused", "#state")
    owner.post("queue/resume")
    signed_in.sees("Idle", "#state")
    signed_in.js("window.release()")
    signed_in.sees("Paused. What runs goes on to its end")
    signed_in.sees("Idle", "#state")


def test_a_queue_whose_kind_is_paused_says_so_and_nothing_seems_to_run(signed_in: Page, owner: Owner) -> None:
    at_once(1, lambda _: deployment.pause("page.order", "an operator"))
    try:
        owner.submit({"product": "tea", "amount": 1, "place": {"street": "Long Lane"}}, kind="page.order")
        signed_in.sees("Waiting: page.order is paused for everybody.", "#state")
        signed_in.sees("Nothing runs at the moment.", ".running")
    finally:
        at_once(1, lambda _: deployment.resume("page.order"))
    signed_in.sees("Idle", "#state")


def test_what_failed_comes_into_an_inbox_until_it_is_dealt_with(signed_in: Page, owner: Owner) -> None:
    calls = [{"method": "GET", "url": f"http://10.0.0.{n}/"} for n in (1, 2)]
    owner.submit(*calls, kind="http.call")
    signed_in.sees("Failed (2)", "#places")
    signed_in.go("failed")
    signed_in.sees("AddressRefused", ".letter")
    assert sequences(signed_in.texts(".letter h2")) == [2, 1]
    signed_in.click(".letter [data-verb=retry]")
    signed_in.sees("http.call #2 is asked for again, as http.call #3.")
    signed_in.until("document.querySelector('.letter h2')?.innerText === 'http.call #3'")
    for _ in range(2):
        signed_in.click(".letter .actions .quiet")
    signed_in.sees("Nothing failed")
    signed_in.open("/#/failed").live().sees("Nothing failed")
    signed_in.go("history")
    signed_in.until("document.querySelectorAll('.row.over [data-status=failed]').length === 3")


def test_putting_all_away_leads_to_what_failed_earlier(signed_in: Page, owner: Owner) -> None:
    owner.submit(*[{"product": "tea", "amount": 1, "place": {"street": "gone"}}] * 430, kind="page.order")
    until(lambda: owner.get("queue")["depth"] == 0, why="all have failed")
    signed_in.go("failed")
    signed_in.browser.refresh()
    signed_in.sees("Failed (200)", "#places")
    assert signed_in.js("return document.querySelectorAll('.letter').length") == 100
    for left in (200, 30):
        signed_in.click("main .titled > .button")
        signed_in.sees(f"Failed ({left})", "#places")
    signed_in.browser.refresh()
    signed_in.sees("Failed (30)", "#places")
    signed_in.click("main .titled > .button")
    signed_in.sees("Nothing failed")
    signed_in.browser.refresh()
    signed_in.live().sees("Nothing failed")


def test_history_goes_back_page_by_page(signed_in: Page, owner: Owner) -> None:
    owner.submit(*range(70))
    until(lambda: owner.get("queue")["depth"] == 0, why="all are over")
    signed_in.go("history")
    signed_in.until("document.querySelectorAll('.row.over').length === 50")
    signed_in.click("main > .frame .actions .button")
    signed_in.until("document.querySelectorAll('.row.over').length === 70")
    shown = sequences(signed_in.texts(".row.over .what a"))
    assert all(earlier == later + 1 for earlier, later in pairwise(shown))
    signed_in.choose("Show", "failed")
    signed_in.sees("There is nothing here.")


def test_all_of_it_by_keyboard(page: Page, owner: Owner) -> None:
    page.open()
    page.tab_to("[name=username]")
    page.press(owner.name, Keys.TAB, PASSWORD, Keys.ENTER)
    page.live()
    page.tab_to("[data-verb=pause]")
    page.press(Keys.ENTER)
    page.sees("Paused", "#state")
    page.tab_to(".new select")
    page.press("demo.echo", Keys.TAB)
    page.press("1", Keys.TAB)
    page.tab_to(".new [type=submit]")
    page.press(Keys.ENTER)
    page.sees("Waiting (1)")
    assert page.focus() == "BUTTON"  # where it was
    page.js("document.querySelector('#main').focus()")
    page.tab_to("#waiting [data-verb=cancel]")
    page.press(Keys.SPACE)
    page.sees("Nothing waits", "#waiting")
    assert page.focus() != "BODY"  # it went to what is near
    page.js("document.querySelector('.skip').focus()")
    page.tab_to('#places a[href="#/account"]')
    page.press(Keys.ENTER)
    page.until("document.activeElement.innerText === 'Account'")
    page.tab_to("main .danger")
    page.press(Keys.ENTER)
    page.sees("You are signed out everywhere.")
    assert page.focus() == "INPUT"
    assert page.errors() == []
