"""Three groups of staff: viewer sees, operator acts on queues and requests, admin keeps users, limits and groups."""

from django.db import migrations

# (app, model) -> what may be done; rights are made here, for Django makes them only after all migrations.
SEE = {
    ("queues", "userqueue"): ["view"],
    ("queues", "request"): ["view"],
    ("queues", "attempt"): ["view"],
    ("queues", "operatoraction"): ["view"],
    ("admin", "logentry"): ["view"],
}
OPERATE = {("queues", "userqueue"): ["operate"], ("queues", "request"): ["operate"]}
ADMINISTER = {
    ("queues", "userqueue"): ["change"],  # its limit; no page lets a hand write anything else
    ("accounts", "user"): ["view", "add", "change"],
    ("accounts", "session"): ["view"],
    ("accounts", "securityevent"): ["view"],
    ("auth", "group"): ["view", "add", "change", "delete"],
}
GROUPS = {"viewer": [SEE], "operator": [SEE, OPERATE], "admin": [SEE, OPERATE, ADMINISTER]}
NAMES = {
    "operate_userqueue": "Can pause, resume, purge and republish queues",
    "operate_request": "Can cancel, retry and skip requests",
}


def make_groups(apps, _schema_editor):
    Group = apps.get_model("auth", "Group")
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    for called, parts in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=called)
        for (app, model), verbs in (item for part in parts for item in part.items()):
            content_type, _ = ContentType.objects.get_or_create(app_label=app, model=model)
            for verb in verbs:
                codename = f"{verb}_{model}"
                name = NAMES.get(codename, f"Can {verb} {apps.get_model(app, model)._meta.verbose_name}")
                right, _ = Permission.objects.get_or_create(
                    content_type=content_type,
                    codename=codename,
                    defaults={"name": name},
                )
                group.permissions.add(right)


class Migration(migrations.Migration):
    dependencies = [
        ("queues", "0007_steering"),
        ("accounts", "0005_security_events"),
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    # Taken back, they stay: people are in them.
    operations = [migrations.RunPython(make_groups, migrations.RunPython.noop)]
