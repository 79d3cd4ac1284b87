from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import examples, staff_audit, tokens  # noqa: F401  (for the admin, for the documentation)

        tokens.keyring()  # keys that do not fit stop the start
