"""`scipion-cloud manage openapi`: the description of the HTTP API, as it is stored in docs/openapi.json."""

import json

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Prints the OpenAPI document."""

    help = "Print the OpenAPI document of the HTTP API."

    def handle(self, *_args: object, **_options: object) -> None:
        """Print it with sorted keys, so that changes are easy to see."""
        from scipion_cloud.portal.api import api  # noqa: PLC0415 - the API needs Django to be set up

        document = api.get_openapi_schema(path_prefix="/api/v1/")
        self.stdout.write(json.dumps(document, indent=1, sort_keys=True))
