"""`manage demo`: something to look at on a new installation."""

from typing import Any

from django.core.management.base import BaseCommand
from django.urls import reverse

from scipion_cloud.config import get_config
from scipion_cloud.portal.administrator import first_administrator
from scipion_cloud.portal.demo import make_demo


class Command(BaseCommand):
    """Makes the demo once, and prints where it is."""

    help = "Make a demo project with example movies and start My Movie Alignment on it, unless there is one."

    def handle(self, *_: Any, **__: Any) -> None:
        """Make the demo and print its page."""
        run = make_demo(first_administrator())
        self.stdout.write(get_config().url + reverse("run", args=[run.project_id, run.pk]))
