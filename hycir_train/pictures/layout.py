"""The layouts beside this file: page.html and curve.svg."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template


def layout(name: str) -> Template:
    """A layout, in which every text is escaped, and what it is not given is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)
