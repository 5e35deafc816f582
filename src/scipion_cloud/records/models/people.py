"""People and the ways in which they prove who they are."""

from contextlib import suppress
from datetime import timedelta
from typing import ClassVar, Self

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import DatabaseError, models, transaction
from django.utils import timezone

from scipion_cloud.records.secrets import digest, new_secret


class User(AbstractUser):
    """A person. Signs in with an e-mail address and a password, or with a link."""

    email = models.EmailField("e-mail address", unique=True)
    first_name = None  # type: ignore[assignment]
    last_name = None  # type: ignore[assignment]
    full_name = models.CharField(max_length=200, blank=True)

    objects: ClassVar[UserManager[Self]] = UserManager()

    def __str__(self) -> str:
        return self.full_name or self.email or self.username

    def get_full_name(self) -> str:
        """The name that others see."""
        return str(self)


class SignInLink(models.Model):
    """A link that signs a person in once, within a short time."""

    LIFETIME = timedelta(minutes=30)

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    digest = models.CharField(max_length=64, unique=True)
    expires = models.DateTimeField()
    used = models.DateTimeField(null=True)

    @classmethod
    def issue(cls, user: User) -> str:
        """Make a link for `user` and return its secret, which is not kept."""
        secret = new_secret()
        cls.objects.create(user=user, digest=digest(secret), expires=timezone.now() + cls.LIFETIME)
        return secret

    @classmethod
    def redeem(cls, secret: str) -> User | None:
        """The user of a link that is still good, which ends the link; None for any other."""
        now = timezone.now()
        with transaction.atomic():
            good = cls.objects.filter(digest=digest(secret), used=None, expires__gt=now, user__is_active=True)
            if not good.update(used=now):
                return None
            return cls.objects.select_related("user").get(digest=digest(secret)).user


class ApiToken(models.Model):
    """Lets a program act for a person through the HTTP API."""

    LIFETIME = timedelta(days=90)

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    created = models.DateTimeField(auto_now_add=True)
    expires = models.DateTimeField()
    last_used = models.DateTimeField(null=True)

    @classmethod
    def issue(cls, user: User, name: str) -> str:
        """Make a token and return it; only its digest is kept."""
        secret = new_secret()
        cls.objects.create(user=user, name=name, digest=digest(secret), expires=timezone.now() + cls.LIFETIME)
        return secret

    @classmethod
    def user_of(cls, secret: str) -> User | None:
        """The active user whose valid token this is, or None."""
        now = timezone.now()
        token = (
            cls.objects.select_related("user")
            .filter(digest=digest(secret), expires__gt=now, user__is_active=True)
            .first()
        )
        if token is None:
            return None
        if token.last_used is None or now - token.last_used > timedelta(minutes=1):
            with suppress(DatabaseError):  # a full disk or a busy database keeps nobody from reading
                cls.objects.filter(pk=token.pk).update(last_used=now)
        return token.user
