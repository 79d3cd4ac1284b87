"""The page without scripts, and the service without the page."""

import os
import re
import subprocess
import sys

import pytest

from scripts.place import ROOT
from tests.client import Client

pytestmark = pytest.mark.django_db  # for its tables


def test_without_scripts_the_page_says_what_this_is_and_where_docs_and_admin_are() -> None:
    page = Client().get("/").content.decode()
    body = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "each user's run in the order in which they came" in body
    assert "The live page needs scripts" in body
    assert {"/api/docs", "/api/redoc", "/api/v1/", "/admin/", "/health/ready"} <= set(
        re.findall(r'href="([^"]+)"', body)
    )


def test_the_address_of_each_file_names_its_content() -> None:
    page = Client().get("/").content.decode()
    for address in re.findall(r'(?:href|src)="(/static/page/[^"]+)"', page):
        assert re.search(r"\?v=[0-9a-f]{12}$", address), address
        assert Client().get(address).status_code == 200


def test_without_the_page_the_root_is_the_plain_one_and_the_rest_works() -> None:
    ask = (
        "import django; django.setup()\n"
        "from django.test import Client\n"
        "from django.core.management import call_command\n"
        "call_command('check')\n"
        "paths = ['/', '/api/v1/', '/api/schema', '/api/docs', '/problems/validation']\n"
        "answers = [Client(headers={'host': 'localhost'}).get(path) for path in paths]\n"
        "print([answer.status_code for answer in answers], b'for operators' in answers[0].content)\n"
    )
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.page.without"}
    done = subprocess.run(
        [sys.executable, "-c", ask], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert "[200, 200, 200, 200, 200] True" in done.stdout, done.stderr
