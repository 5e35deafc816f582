"""Addresses of a project's desktop; the WebSocket's own is in `relay`."""

from django.urls import include, path

from scipion_cloud.portal.views import desktops

_desktop = [
    path("", desktops.show, name="desktop"),
    path("open/", desktops.open_one, name="desktop-open"),
    path("state/", desktops.state, name="desktop-state"),
    path("ticket/", desktops.ticket, name="desktop-ticket"),
    path("extend/", desktops.extend, name="desktop-extend"),
    path("stop/", desktops.stop, name="desktop-stop"),
]

urlpatterns = [path("projects/<uuid:project_id>/desktop/", include(_desktop))]
