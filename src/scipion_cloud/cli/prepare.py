"""Brings the database and the static files up to date: `python -m scipion_cloud.cli.prepare [--static]`.

A process of its own, so that Django does not stay in the memory of `up`.
"""

import os
import sys

from scipion_cloud.errors import ScipionCloudError


def main() -> None:
    """Migrate, make the cache table and, if asked, collect the static files."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "scipion_cloud.portal.settings"
    import django
    from django.db import DatabaseError

    try:
        django.setup()
        _prepare()
    except ScipionCloudError as e:
        sys.exit(str(e))
    except DatabaseError as e:
        sys.exit(f"The database cannot be used: {e}. If it is damaged, put a backup in its place.")


def _prepare() -> None:
    from django.core.management import call_command

    call_command("migrate", interactive=False, verbosity=1)
    call_command("createcachetable", verbosity=0)
    if "--static" in sys.argv:
        call_command("collectstatic", interactive=False, clear=True, verbosity=0)


if __name__ == "__main__":
    main()
