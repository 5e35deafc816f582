"""Addresses of the data page and of what its uploader asks the server."""

from django.urls import path

from scipion_cloud.portal.views import uploads

urlpatterns = [
    path("projects/<uuid:project_id>/data/", uploads.show, name="project-data"),
    path("projects/<uuid:project_id>/data/state/", uploads.state, name="project-uploads"),
    path("projects/<uuid:project_id>/data/files/", uploads.files, name="project-data-files"),
    path("projects/<uuid:project_id>/data/plan/", uploads.announce, name="project-uploads-plan"),
    path("projects/<uuid:project_id>/data/forget/", uploads.forget, name="project-uploads-forget"),
    path("projects/<uuid:project_id>/data/delete/", uploads.delete, name="project-data-delete"),
]
