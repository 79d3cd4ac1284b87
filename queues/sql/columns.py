"""The columns that are read of a queue and of a request: all but the generated ones, and JSON as text."""

from django.db.models import Model
from django.db.models.fields.generated import GeneratedField

from queues.models import Request, UserQueue

JSON_COLUMNS = ("payload", "result", "error")


def _columns(model: type[Model]) -> list[str]:
    return [
        field.attname
        for field in model._meta.concrete_fields
        if field.attname not in JSON_COLUMNS and not isinstance(field, GeneratedField)
    ]


QUEUE, REQUEST = _columns(UserQueue), _columns(Request)
SHOWN = [*REQUEST, *(f"{name}_text" for name in JSON_COLUMNS)]
QUEUE_COLUMNS = ", ".join(f"q.{name} AS queue_{name}" for name in QUEUE)
REQUEST_COLUMNS = ", ".join(f"r.{name} AS request_{name}" for name in REQUEST)
TEXT_COLUMNS = ", ".join(f"r.{name}::text" for name in JSON_COLUMNS)
