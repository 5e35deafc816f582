"""Inviting people, and letting them into projects."""

import secrets

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.urls import reverse

from scipion_cloud.config import get_config
from scipion_cloud.errors import InvalidInput
from scipion_cloud.model import Role
from scipion_cloud.portal.services.guards import need
from scipion_cloud.records.models import Membership, Project, SignInLink, User


def invite(email: str, *, full_name: str = "", administrator: bool = False) -> str:
    """A link that signs the person with this address in once; the account is made if there is none.

    Raises InvalidInput for what is no e-mail address or belongs to a closed account.
    """
    email = User.objects.normalize_email(email.strip())
    try:
        validate_email(email)
    except ValidationError as e:
        raise InvalidInput(
            errors={"email": "This is not an e-mail address; it looks like name@place.org."}
        ) from e
    user = User.objects.filter(email__iexact=email).first()
    if user is None:
        user = User(username=f"user-{secrets.token_hex(8)}", email=email, full_name=full_name.strip())
        user.is_staff = user.is_superuser = administrator
        user.set_unusable_password()
        user.save()
    if not user.is_active:
        raise InvalidInput(errors={"email": "This account is closed; an administrator can open it again."})
    return get_config().url + reverse("sign-in", args=[SignInLink.issue(user)])


def add_member(user: User, project: Project, email: str, role: Role) -> Membership:
    """Let the person with this address into the project, or change the role that they have there.

    Raises InvalidInput if nobody has the address or it is the owner's, PermissionDenied unless `user` is a
    manager.
    """
    need(user, project, Role.MANAGER)
    email = email.strip()
    known = User.objects.filter(email__iexact=email, is_active=True)
    person = known.first() if email.isprintable() else None  # no address, and PostgreSQL refuses NUL
    if person is None:
        text = "Nobody here has this address; an administrator can invite them first."
        raise InvalidInput(errors={"email": text})
    if person.pk == project.owner_id:
        raise InvalidInput(errors={"email": "This is the owner of the project, who may do everything in it."})
    membership, _ = Membership.objects.update_or_create(
        project=project, user=person, defaults={"role": role.value}
    )
    return membership


def remove_member(user: User, project: Project, member_id: int) -> None:
    """End a membership; everybody may leave, a manager may send others away. No such member is no error."""
    if member_id != user.pk:
        need(user, project, Role.MANAGER)
    Membership.objects.filter(project=project, user__in=User.objects.filter(pk=member_id)).delete()
