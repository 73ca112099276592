"""retold schema: print the JSON Schema of workflow files, for editors."""

from .common import print_json


def schema() -> None:
    """Print the JSON Schema of workflow files, for editors that complete and check YAML.

    Save it as retold-workflow.schema.json, and name it in the first line of your workflow:

    \b
        # yaml-language-server: $schema=retold-workflow.schema.json

    Example: retold schema
    """
    from ..workflow.json_schema import json_schema

    print_json(json_schema())
