"""The first account of an installation."""

from scipion_cloud.errors import InvalidInput
from scipion_cloud.records.models import User


def first_administrator(email: str = "admin@localhost") -> User:
    """The active administrator who has been here longest; if there is none, a new account `admin`.

    Raises InvalidInput if an account that is no administrator's stands in the way.
    """
    user = User.objects.filter(is_superuser=True, is_active=True).order_by("date_joined", "pk").first()
    if user is not None:
        return user
    if User.objects.filter(username="admin").exists() or User.objects.filter(email__iexact=email).exists():
        raise InvalidInput(
            f"There is no administrator, and the name 'admin' or the address {email} is another account's. "
            "Give another address with --email, or open a closed administrator's account again."
        )
    return User.objects.create_superuser(username="admin", email=email)
