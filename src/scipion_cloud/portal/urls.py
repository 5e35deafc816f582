"""Every address of the portal but the streams, which are in `asgi`."""

from allauth.account.views import login, logout
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from scipion_cloud.portal.api import api
from scipion_cloud.portal.views import (
    account,
    deployments,
    movies,
    people,
    preparations,
    projects,
    runs,
    sites,
    storages,
    tools,
)


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
    path("preparation/", preparations.state, name="project-preparation"),
    path("preparation/again/", preparations.again, name="project-prepare-again"),
    path("deployment/", deployments.state, name="project-deployment"),
    path("deployment/expectation/", deployments.expectation, name="project-expectation"),
    path("deployment/open/", deployments.open_one, name="project-open"),
    path("deployment/close/", deployments.close, name="project-close"),
    path("deployment/save/", deployments.save, name="project-save"),
    path("deployment/extend/", deployments.extend, name="project-extend"),
    path("deployment/confirm/", deployments.confirm, name="project-confirm"),
    path("deployment/discard/", deployments.discard, name="project-discard"),
    path("history/", deployments.history, name="project-history"),
    path("history/<int:generation>/restore/", deployments.restore, name="project-restore"),
    path("tools/<slug:tool_id>/", tools.start, name="tool"),
    path("tools/<slug:tool_id>/where/", tools.where, name="tool-where"),
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
    path("storages/", storages.index, name="storages"),
    path("storages/new/", storages.kinds, name="storage-kinds"),
    path("storages/new/onedata/spaces/", storages.spaces, name="storage-spaces"),
    path("storages/new/<slug:kind_id>/", storages.connect, name="storage-connect"),
    path("storages/<uuid:storage_id>/", storages.show, name="storage"),
    path("storages/<uuid:storage_id>/folder/", storages.folder, name="storage-folder"),
    path("storages/<uuid:storage_id>/forget/", storages.forget, name="storage-forget"),
    path("sites/", sites.index, name="sites"),
    path("sites/<slug:name>/", sites.show, name="site"),
    path("sites/<slug:name>/drain/", sites.drain, name="site-drain"),
    path("sites/<slug:name>/resume/", sites.resume, name="site-resume"),
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
