"""`gateway openapi`: the description of the API, without a running gateway."""

from typing import Annotated

import typer


def openapi(
    *,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="For people, as docs/api.md in the repository.")
    ] = False,
) -> None:
    """Print the API's description: OpenAPI 3.1 as JSON.

    A running gateway serves the same at /openapi.json, and for people at /docs.
    """
    from gateway.web import bodies, openapi, reference

    document = openapi.document(openapi.everything())
    text = reference.markdown(document) if markdown else bodies.dumps(document).decode() + "\n"
    typer.echo(text, nl=False)
