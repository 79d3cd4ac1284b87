"""A JSON column that gives back what was stored, to the letter."""

import json
from typing import Any

from django.db import models
from psycopg.types.json import Json


class JSONText(models.JSONField):
    """PostgreSQL's `json`: the text as it came. `jsonb` would reorder keys and rewrite numbers (1e300).

    Read through a model it is the decoded value; `Cast(name, TextField())` gives the text.
    """

    def db_type(self, connection: Any) -> str:
        return "json"

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        # As text: psycopg would decode it, and a stored string could not be told from text still to be decoded.
        return f"({sql})::text", params

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else json.loads(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return value if value is None or hasattr(value, "as_sql") else Json(value)
