"""Brings the database and the static files up to date: `python -m scipion_cloud.cli.prepare [--static]`.

A process of its own, so that Django does not stay in the memory of `up`.
"""

import os
import sys


def main() -> None:
    """Migrate, make the cache table and, if asked, collect the static files."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "scipion_cloud.portal.settings"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", interactive=False, verbosity=1)
    call_command("createcachetable", verbosity=0)
    if "--static" in sys.argv:
        call_command("collectstatic", interactive=False, clear=True, verbosity=0)


if __name__ == "__main__":
    main()
