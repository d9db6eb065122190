#!/usr/bin/env python3
"""Sends what stands on standard input, a line of JSON each: [timestamp in ms, value]. `lakesmith produce` leaves the time to Kafka.

Every 50th record gets a key, every 100th a header, so that readers have both and neither to show.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stack"))

from sql_client import become, setting  # noqa: E402


def main(arguments: list[str]) -> None:
    become("LAKESMITH_CLIENTS_PYTHON", __file__, arguments)
    from confluent_kafka import Producer

    (topic,) = arguments
    producer = Producer({"bootstrap.servers": setting("KAFKA_BROKER"), "acks": "all", "linger.ms": 20})
    failures = []

    def delivered(error, _message) -> None:
        if error:
            failures.append(str(error))

    for number, line in enumerate(sys.stdin):
        timestamp_ms, value = json.loads(line)
        key = f"key {number}".encode() if number % 50 == 0 else None
        headers = [("source", b"shop \xff")] if number % 100 == 0 else None
        raw = value.encode("utf-8", "surrogateescape")
        producer.produce(topic, raw, key=key, headers=headers, partition=number % 3, timestamp=timestamp_ms, on_delivery=delivered)
        producer.poll(0)
    left = producer.flush(60)
    if left or failures:
        sys.exit(f"error: {left} records were not delivered; {failures[:1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
