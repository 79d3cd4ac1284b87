from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import staff_audit, tokens  # noqa: F401  (for the admin)
        from accounts.api import examples  # noqa: F401  (for the documentation)

        tokens.keyring()  # keys that do not fit stop the start
