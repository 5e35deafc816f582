"""`manage admin_link`: the way in for the first administrator."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.urls import reverse

from scipion_cloud.config import get_config
from scipion_cloud.portal.administrator import first_administrator
from scipion_cloud.records.models import SignInLink, User


class Command(BaseCommand):
    """Prints one sign-in link and nothing else."""

    help = "Print a link that signs the first administrator in, once; the account is made if there is none."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the command's options."""
        parser.add_argument(
            "--email", default="admin@localhost", help="address of the account, if it must be made"
        )
        parser.add_argument(
            "--if-unused", action="store_true", help="print nothing once an administrator has signed in"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Print the link."""
        if options["if_unused"] and User.objects.filter(is_superuser=True, last_login__isnull=False).exists():
            return
        user = first_administrator(options["email"])
        self.stdout.write(get_config().url + reverse("sign-in", args=[SignInLink.issue(user)]))
