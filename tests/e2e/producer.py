"""Publishes a job as Avro and one as JSON, asks each to run, and waits for the answers.

Knows the schemas and nothing else of the project: confluent-kafka and fastavro only.
Usage: producer.py BOOTSTRAP PREFIX SCHEMA_FOLDER
"""

import io
import json
import pathlib
import struct
import sys
import time

import fastavro
from confluent_kafka import Consumer, Producer

BOOTSTRAP, PREFIX, FOLDER = sys.argv[1:4]
DEADLINE = time.time() + 90


def schema(name):
    return fastavro.parse_schema(json.loads((pathlib.Path(FOLDER) / f"{name}.avsc").read_text()))


def fingerprint(raw):
    form = fastavro.schema.to_parsing_canonical_form(raw)
    return bytes.fromhex(fastavro.schema.fingerprint(form, "CRC-64-AVRO"))


def framed(name, value):
    parsed = schema(name)
    body = io.BytesIO()
    fastavro.schemaless_writer(body, parsed, value)
    return b"\xc3\x01" + fingerprint(parsed) + body.getvalue()


def unframed(name, data):
    assert data[:2] == b"\xc3\x01", data[:10]
    parsed = schema(name)
    assert data[2:10] == fingerprint(parsed), name
    return fastavro.schemaless_reader(io.BytesIO(data[10:]), parsed, None)


AVRO_JOB = {
    "job": "python/avro",
    "schedule": [],
    "spec": {
        "queue": "default",
        "overlap": {"policy": "allow", "max": 100},
        "target": ("orloj.ExecTarget", {"command": ["/bin/sh", "-c", "echo from avro"], "env": {}, "workingDir": None, "stdin": ""}),
    },
}
JSON_JOB = {
    "apiVersion": "orloj/v1",
    "kind": "Job",
    "metadata": {"namespace": "python", "name": "json"},
    "spec": {"run": {"shell": {"script": "echo from json; exit 3"}}},
}


def with_defaults(value, record):
    """Fills in the defaults of the schema, as a producer's own library would."""
    fields = {field["name"]: field for field in record["fields"]}
    for name, field in fields.items():
        if name not in value and "default" in field:
            value[name] = field["default"]
        inner = field["type"]
        if isinstance(inner, dict) and inner.get("type") == "record" and isinstance(value.get(name), dict):
            with_defaults(value[name], inner)
    return value


def main():
    # librdkafka's default partitioner is not the Java client's: this setting is what our users are told.
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "partitioner": "murmur2_random"})
    raw = json.loads((pathlib.Path(FOLDER) / "JobDefinition.avsc").read_text())
    job = with_defaults(AVRO_JOB, raw)
    producer.produce(PREFIX + "jobs", key="python/avro", value=framed("JobDefinition", job))
    producer.produce(PREFIX + "jobs", key="python/json", value=json.dumps(JSON_JOB))
    for name in ("avro", "json"):
        command = {"type": "RunNow", "commandId": f"first-{name}", "params": {"who": "python"}}
        producer.produce(PREFIX + "commands", key=f"python/{name}", value=json.dumps(command))
    producer.produce(PREFIX + "jobs", key="python/broken", value=b'{"apiVersion": "orloj/v1", "kind": "Jop"}')
    producer.flush(30)

    consumer = Consumer({
        "bootstrap.servers": BOOTSTRAP, "group.id": "python", "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    })
    consumer.subscribe([PREFIX + "job.events", PREFIX + "run.events", PREFIX + "quarantine"])
    answers, ends, quarantined, commands = {}, {}, [], set()
    while len(answers) < 3 or len(ends) < 2 or not quarantined:
        if time.time() > DEADLINE:
            sys.exit(f"no answer in time: {answers} {ends} {quarantined}")
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        if (message.key() or b"").startswith(b"__"):
            # A mark of the services.
            continue
        if message.topic().endswith("quarantine"):
            quarantined.append((message.key(), dict(message.headers())))
        elif message.topic().endswith("job.events"):
            event = unframed("JobEvent", message.value())
            if event["type"] == "commandRejected":
                # The command overtook the definition: it is another topic. Ask again, as a producer would.
                name = event["job"].split("/")[1]
                if (name, event["commandId"]) not in commands:
                    commands.add((name, event["commandId"]))
                    again = {"type": "RunNow", "commandId": f"again-{name}"}
                    producer.produce(PREFIX + "commands", key=event["job"], value=json.dumps(again))
                    producer.flush(30)
            else:
                answers[event["job"]] = event
        else:
            event = unframed("RunEvent", message.value())
            if event["state"] in ("succeeded", "failed", "dead", "cancelled", "expired"):
                ends[event["job"]] = event
    consumer.close()
    assert answers["python/avro"]["type"] == "accepted", answers
    assert answers["python/json"]["type"] == "accepted", answers
    assert answers["python/broken"]["type"] == "rejected", answers
    assert answers["python/broken"]["errors"], answers
    assert ends["python/avro"]["state"] == "succeeded", ends
    assert ends["python/json"]["state"] == "dead", ends
    assert ends["python/json"]["outcome"]["exitCode"] == 3, ends
    assert quarantined[0][0] == b"python/broken", quarantined
    assert quarantined[0][1]["orloj-quarantine-topic"].endswith(b"jobs"), quarantined
    print("answers and results read back by a stranger")


main()
