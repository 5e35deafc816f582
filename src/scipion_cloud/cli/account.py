"""`scipion-cloud login` and `logout`."""

import platform
import re
import sys
from urllib.parse import urlsplit

import click

from scipion_cloud.cli.client import Client, ServerError
from scipion_cloud.cli.credentials import (
    Credential,
    choose_server,
    clean_server,
    is_exposed,
    read_credentials,
    store_credential,
)
from scipion_cloud.cli.output import show_json
from scipion_cloud.config import get_config

_LINK = re.compile(r"/sign-in/([\w-]+)/?")
_UNAUTHORIZED = 401


@click.command()
@click.argument("url", required=False)
@click.option("--email", help="Who you are; asked for if left out.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--link", metavar="URL", help="Sign in with a one-time link instead of a password.")
@click.option("--json", "as_json", is_flag=True, help="Answer with JSON on standard output.")
def login(url: str | None, email: str | None, password_stdin: bool, link: str | None, as_json: bool) -> None:
    """Sign in to the Scipion Cloud at URL (else: the one of this machine).

    The token that is kept is valid for 90 days and is no use for changing the password.
    """
    body = {"name": f"command line on {platform.node()}"[:100]}
    if link:
        parts = urlsplit(link)
        match = _LINK.fullmatch(parts.path)
        if match is None or not parts.netloc:
            raise click.UsageError(
                "--link takes the whole address of a sign-in link, https://.../sign-in/..."
            )
        server = clean_server(url or f"{parts.scheme}://{parts.netloc}")
        body["link"] = match[1]
    else:
        server = clean_server(url or get_config().url)
        if is_exposed(server):
            click.secho(
                "Careful: this address is http, so the password travels unprotected.", fg="yellow", err=True
            )
        body["email"] = email or click.prompt("E-mail", err=True)
        if password_stdin:
            body["password"] = sys.stdin.readline().rstrip("\r\n")
        else:
            body["password"] = click.prompt("Password", hide_input=True, err=True)
    with Client(server) as client:
        token = client.post("/login", body)["token"]
    with Client(server, token) as client:
        me = client.get("/me")
    store_credential(server, Credential(email=me["email"], token=token))
    if as_json:
        show_json({"server": server, **me})
    else:
        click.echo(f"Signed in at {server} as {me['email']}.")


@click.command()
@click.option(
    "--server", metavar="URL", help="Which Scipion Cloud; else $SCIPION_CLOUD_SERVER or the only one."
)
@click.option("--json", "as_json", is_flag=True, help="Answer with JSON on standard output.")
def logout(server: str | None, as_json: bool) -> None:
    """End the sign-in of this terminal, here and at the server."""
    if not server and not read_credentials():
        click.echo("Nobody is signed in here.")
        return
    address, credential = choose_server(server)
    try:
        with Client(address, credential.token) as client:
            client.post("/logout")
    except ServerError as e:
        if e.status != _UNAUTHORIZED:  # else it had ended anyway
            click.secho(
                f"{e} The token is forgotten here; revoke it on your account page.", fg="yellow", err=True
            )
    store_credential(address, None)
    if as_json:
        show_json({"server": address})
    else:
        click.echo(f"Signed out of {address}.")
