"""Reads the golden vectors with fastavro: what a program in another language sees of our records.

For each schemas/golden/<Record>[.<case>].bin: the framing, the fingerprint as fastavro computes it, the record
against the .json beside it, and the same bytes when written again. Prints one line per vector; exits 1 if any
differs. Usage: check.py SCHEMA_FOLDER
"""

import io
import json
import sys
from pathlib import Path

from fastavro import json_reader, parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

MAGIC = b"\xc3\x01"
HEADER_BYTES = 10


def fingerprint_of(schema: dict) -> bytes:
    """CRC-64-AVRO as it stands in the header: little-endian."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def check(path: Path, schemas: dict, fingerprints: dict) -> None:
    """Raises AssertionError that says what differs."""
    record_name = path.name.split(".")[0]
    schema = schemas[record_name]
    data = path.read_bytes()
    assert data[:2] == MAGIC, f"begins with {data[:2].hex()}, not c301"
    expected = fingerprint_of(schema)
    assert data[2:HEADER_BYTES] == expected, f"fingerprint {data[2:HEADER_BYTES].hex()}, fastavro's is {expected.hex()}"
    listed = bytes.fromhex(fingerprints[record_name])[::-1]
    assert listed == expected, "fingerprints.json has another fingerprint"

    parsed = parse_schema(schema)
    body = io.BytesIO(data[HEADER_BYTES:])
    # The names of a union's branches are kept: they tell apart targets that have the same fields.
    record = schemaless_reader(body, parsed, return_record_name=True, return_record_name_override=True)
    assert body.read() == b"", "bytes are left over after the record"

    text = path.with_suffix(".json").read_text(encoding="utf-8")
    one_line = json.dumps(json.loads(text))
    (from_json,) = json_reader(io.StringIO(one_line), parsed)
    written = io.BytesIO()
    schemaless_writer(written, parsed, record)
    assert written.getvalue() == data[HEADER_BYTES:], "written again from the bytes, it is other bytes"
    written = io.BytesIO()
    schemaless_writer(written, parsed, from_json)
    assert written.getvalue() == data[HEADER_BYTES:], "written from the .json, it is other bytes"
    body.seek(0)
    assert schemaless_reader(body, parsed) == from_json, "the .json holds another record"


def main() -> int:
    folder = Path(sys.argv[1])
    schemas = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.avsc")}
    fingerprints = json.loads((folder / "golden" / "fingerprints.json").read_text(encoding="utf-8"))
    vectors = sorted((folder / "golden").glob("*.bin"))
    failures = 0
    for path in vectors:
        try:
            check(path, schemas, fingerprints)
            print(f"ok {path.name}")
        except Exception as error:  # a vector that can't be read is a failure like any other
            failures += 1
            print(f"FAILED {path.name}: {type(error).__name__}: {error}")
    missing = set(schemas) - {path.name.split(".")[0] for path in vectors}
    for record_name in sorted(missing):
        failures += 1
        print(f"FAILED {record_name}: no vector")
    if set(fingerprints) != set(schemas):
        failures += 1
        print("FAILED fingerprints.json: does not list exactly the records of the schemas")
    print(f"{len(vectors)} vectors, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
