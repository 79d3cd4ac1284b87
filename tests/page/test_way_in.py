"""Who may sign up on the page, how one gets back in without a password, and how an address is confirmed."""

from collections.abc import Callable, Iterator

import pytest

from accounts.audit import Event, SecurityEvent
from accounts.invitations import Invitation
from accounts.models import User
from tests.accounts.people import PASSWORD, at_once
from tests.page.eyes import Page
from tests.page.site import Site
from tests.waiting import until

pytestmark = pytest.mark.django_db  # for its tables


@pytest.fixture
def registration(site: Site) -> Iterator[Callable[[str], None]]:
    """Has the service take registrations as this setting says, until the test is over."""

    def restart(**settings: str) -> None:
        site.stop("api")
        site.restart("api", **settings)
        site.wait()

    yield lambda who: restart(REGISTRATION=who)
    restart()


def test_who_was_invited_signs_up_with_the_code(page: Page, site: Site, registration: Callable[[str], None]) -> None:
    registration("invite")
    address = "invited@example.com"
    [code] = at_once(1, lambda _: Invitation.objects.create(email=address).code)
    page.open()
    page.click(".way-in .link")
    page.type("[name=username]", f"invited-{site.port}")
    page.type("[name=password]", PASSWORD)
    page.type("[name=email]", address)
    page.click(".way-in [type=submit]")
    page.until("document.activeElement.name === 'invitation'")
    page.sees("Registration needs the code of an invitation.", ".way-in .error:not([hidden])")
    page.type("[name=invitation]", code)
    page.click(".way-in [type=submit]")
    page.live().sees("Idle. Nothing waits.")
    assert page.errors() == []


def test_where_registration_is_closed_the_page_offers_none(page: Page, registration: Callable[[str], None]) -> None:
    registration("closed")
    page.open().sees("Ask an operator for one.", ".way-in")
    assert "Sign up" not in page.text()


def test_who_forgot_their_password_is_led_to_the_form_that_mails_a_link(page: Page) -> None:
    page.open().until("document.querySelector('.way-in')")
    assert page.js("return document.querySelector('[name=invitation]')") is None
    page.click(".way-in a")
    page.sees("A link to set a new password is mailed there.")


def test_another_link_to_confirm_an_address_is_mailed_from_the_account(page: Page, site: Site) -> None:
    owner = site.owner(f"unconfirmed-{site.port}", "unconfirmed@example.com")
    page.enter(owner).go("account")
    page.sees("Not confirmed yet", "main")
    assert page.found_by_axe() == []
    page.click("main section.titled .button")
    page.sees("If unconfirmed@example.com is not confirmed yet, a mail with a link is on its way.")
    mailed = SecurityEvent.objects.filter(user_id=owner.id, event=Event.VERIFICATION_MAILED)
    until(mailed.exists, 20, "the link is mailed")
    at_once(1, lambda _: User.objects.filter(id=owner.id).update(verified_email="unconfirmed@example.com"))
    page.open().live().go("account")
    page.until("[...document.querySelectorAll('main .badge')].some((one) => one.textContent === 'confirmed')")
    assert "Mail me a link" not in page.text()
    assert page.found_by_axe() == []
    assert page.errors() == []


def test_who_gave_no_address_is_asked_to_confirm_none(signed_in: Page) -> None:
    signed_in.go("account")
    signed_in.sees("this one", "main")
    assert "E-mail address" not in signed_in.text()
