"""Every address of the portal but the streams, which are in `asgi`."""

from allauth.account.views import login, logout
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from scipion_cloud.portal.api import api
from scipion_cloud.portal.views import account, movies, people, projects, runs, tools


def healthz(_request: HttpRequest) -> HttpResponse:
    """Answers as soon as the portal serves pages."""
    return HttpResponse("ok", content_type="text/plain")


_project = [
    path("", projects.show, name="project"),
    path("status/", projects.status, name="project-status"),
    path("settings/", projects.settings, name="project-settings"),
    path("delete/", projects.delete, name="project-delete"),
    path("members/", projects.add_member, name="project-add-member"),
    path("members/<int:user_id>/remove/", projects.remove_member, name="project-remove-member"),
    path("tools/<slug:tool_id>/", tools.start, name="tool"),
    path("runs/<uuid:run_id>/", runs.show, name="run"),
    path("runs/<uuid:run_id>/live/", runs.live, name="run-live"),
    path("runs/<uuid:run_id>/cancel/", runs.cancel, name="run-cancel"),
    path("runs/<uuid:run_id>/log/", runs.log, name="run-log"),
    path("runs/<uuid:run_id>/micrographs.star", runs.star, name="run-star"),
    path("runs/<uuid:run_id>/movies/<int:index>/", movies.show, name="movie"),
    path("runs/<uuid:run_id>/movies/<int:index>/accepted/", movies.set_accepted, name="movie-accepted"),
    path("runs/<uuid:run_id>/movies/<int:index>/micrograph/", movies.micrograph, name="movie-micrograph"),
    path("runs/<uuid:run_id>/movies/<int:index>/<slug:kind>.webp", movies.picture, name="movie-picture"),
]

urlpatterns = [
    path("healthz", healthz),
    path("", projects.index, name="projects"),
    path("new/", projects.new, name="project-new"),
    path("projects/<uuid:project_id>/", include(_project)),
    path("", include("scipion_cloud.portal.desktops.urls")),
    path("", include("scipion_cloud.portal.uploads.urls")),
    path("account/", account.show, name="account"),
    path("account/tokens/", account.create_token, name="account-token"),
    path("account/tokens/<int:token_id>/revoke/", account.revoke_token, name="account-token-revoke"),
    path("accounts/login/", login, name="account_login"),
    path("accounts/logout/", logout, name="account_logout"),
    path("sign-in/<str:secret>/", account.sign_in, name="sign-in"),
    path("people/", people.index, name="people"),
    path("people/<int:user_id>/link/", people.link, name="people-link"),
    path("api/v1/", api.urls),
]
