"""`flashrank-lite serve`: an HTTP server of the models, which rerank clients already speak to."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields

from flashrank_lite.cli.command import Command
from flashrank_lite.errors import MissingExtra

DESCRIPTION = """\
Serve models over HTTP, for clients of Cohere, Jina, Text Embeddings Inference, vLLM, infinity and
Metarank, with a page to try them at /.
"""
EXAMPLES = """\
examples:
  flashrank-lite serve
  flashrank-lite serve --model nano --model mine=./my-model --alias rerank-v3.5=nano
  FLASHRANK_LITE_API_KEY=secret flashrank-lite serve --host 0.0.0.0 --port 80
  flashrank-lite serve --config serve.yaml

Every flag is also a variable (--max-queue: FLASHRANK_LITE_MAX_QUEUE) and a setting of the file
(max_queue). A flag wins over a variable, and that over the file.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags: one for each setting."""
    from flashrank_lite.server import configuration

    configuration.add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; the exit status."""
    from flashrank_lite.server.configuration import resolve
    from flashrank_lite.server.settings import Settings

    flags = {one.name: getattr(arguments, one.name) for one in fields(Settings)}
    settings = resolve(flags, os.environ, arguments.config)
    try:
        from flashrank_lite.server.run import serve
    except ImportError as error:
        raise MissingExtra(f"serving needs {error.name}", "server") from error
    return serve(settings)


COMMAND = Command(
    name="serve",
    help="serve models over HTTP, to the clients of others",
    description=DESCRIPTION,
    examples=EXAMPLES,
    add_flags=add_flags,
    run=run,
)
