"""How people come in: by invitation, a link that works once, and then a password of their own."""

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class InvitedOnly(DefaultAccountAdapter):  # type: ignore[misc]
    """No open sign-up: on one machine every user shares the service's account, so people are invited."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002
        """Nobody signs up alone."""
        return False
