"""Programs that tests need come from apt-get, or are asked for by name."""

import pytest

from scripts.place import SetupError
from scripts.servers import packages


def test_a_program_that_cannot_be_had_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "why_not", lambda: "not root")
    with pytest.raises(SetupError, match=r"^Not on the PATH: no-such; .*: not root\. Install its-package\.$"):
        packages.programs({"no-such": "its-package", "sh": "dash"})


def test_what_is_there_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "install", lambda *names: pytest.fail(f"installed {names}"))
    assert packages.programs({"sh": "dash"})["sh"].endswith("/sh")


def test_all_that_is_missing_is_installed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(packages, "why_not", lambda: None)
    monkeypatch.setattr(packages, "install", lambda *names: asked.append(names))
    with pytest.raises(SetupError):
        packages.programs({"no-such": "one", "nor-such": "other", "neither": "one"})
    assert asked == [("one", "other")]
