"""Django's settings, all derived from Scipion Cloud's one configuration."""

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from scipion_cloud.config import get_config
from scipion_cloud.errors import ConfigError
from scipion_cloud.portal.database import database_settings

_config = get_config()
_here = Path(__file__).parent
_url = urlsplit(_config.url)
_tls = _url.scheme == "https"


def _secret_key() -> str:
    """The signing key of this home, made on first use and readable by its owner only."""
    file = _config.home / "secret-key"
    try:
        if key := file.read_text():
            return key
        raise ConfigError(f"{file} is empty. Delete it: a new one is made, and everybody signs in again.")
    except FileNotFoundError:
        _config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=_config.home, prefix="secret-key.") as fresh:  # mode 0600
            fresh.write(secrets.token_urlsafe(64))
            fresh.flush()
            with suppress(FileExistsError):  # the first of two processes wins; both then read the same key
                os.link(fresh.name, file)
        return file.read_text()
    except OSError as e:
        raise ConfigError(f"{file} cannot be read ({e.strerror}). Give it back to the service's user.") from e


SECRET_KEY = _secret_key()
DEBUG = False
ALLOWED_HOSTS = [_url.hostname or "localhost", "localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = [f"{_url.scheme}://{_url.netloc}"]
ROOT_URLCONF = "scipion_cloud.portal.urls"
ASGI_APPLICATION = "scipion_cloud.portal.asgi.application"
AUTH_USER_MODEL = "records.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "scipion_cloud.records.apps.RecordsConfig",
    "scipion_cloud.portal.apps.PortalConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "scipion_cloud.portal.middleware.known_errors",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [_here / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

DATABASES = {"default": database_settings(_config.database, _config.home)}

# Accounts: an administrator invites people with a link; there is no open sign-up.
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
ACCOUNT_ADAPTER = "scipion_cloud.portal.accounts.InvitedOnly"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = {"login": "30/m/ip", "login_failed": "10/m/ip,5/5m/key"}
EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "projects"
LOGOUT_REDIRECT_URL = "account_login"

CACHES = {  # sign-in throttling must count across processes
    "default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"}
}

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _tls
SESSION_COOKIE_AGE = 14 * 24 * 3600
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _tls else None
SECURE_HSTS_SECONDS = 31_536_000 if _tls else 0
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

STATIC_URL = "/static/"
STATIC_ROOT = _config.home / "static"
_vendor = _here / "web" / "node_modules"
STATICFILES_DIRS = [
    _here / "static",
    ("vendor/novnc/core", _vendor / "@novnc/novnc/core"),
    ("vendor/novnc/vendor", _vendor / "@novnc/novnc/vendor"),
    ("vendor/uppy", _vendor / "uppy/dist"),
    ("vendor/htmx", _vendor / "htmx.org/dist"),
    ("vendor/inter", _vendor / "@fontsource-variable/inter"),
]

LANGUAGE_CODE = "en-gb"
USE_TZ = True
TIME_ZONE = "UTC"
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024  # a plan of 10,000 file names; files themselves come by tus
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5000

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "filters": {"secrets": {"()": "scipion_cloud.portal.logs.WithoutSecrets"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["secrets"]}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {"httpx": {"level": "WARNING"}},
}
