"""Whether a database is one that the driver can work with, asked of its own schema before anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ovs.db.error import Error
from ovs.db.schema import DbSchema

from services.runtime.errors import Misconfigured

NEEDED: Final[Mapping[str, Mapping[str, str]]] = {
    "Open_vSwitch": {"bridges": "uuid", "ovs_version": "string"},
    "Bridge": {"name": "string", "ports": "uuid", "datapath_type": "string", "fail_mode": "string"},
    "Port": {"name": "string", "interfaces": "uuid", "tag": "integer", "external_ids": "string"},
    "Interface": {
        "name": "string",
        "type": "string",
        "ofport": "integer",
        "ofport_request": "integer",
        "error": "string",
        "options": "string",
        "external_ids": "string",
    },
}


def check_schema(raw: Mapping[str, Any]) -> str:
    """The schema's version; it has every column that is used here, of the kind that is written into it.

    Raises: `Misconfigured`, naming what is missing.
    """
    try:
        schema = DbSchema.from_json(raw)
    except Error as error:
        raise Misconfigured(f"the switch's database has a schema that cannot be read: {error}") from error
    for table, columns in NEEDED.items():
        for column, kind in columns.items():
            found = schema.tables[table].columns.get(column) if table in schema.tables else None
            if found is None or found.type.key.type.to_string() != kind:
                wanted = f"{table}.{column} of {kind}"
                raise Misconfigured(f"the switch's database (schema {schema.version}) has no {wanted}: use a newer one")
    return str(schema.version)
