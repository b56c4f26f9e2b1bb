"""A FastAPI service with a confluent-kafka producer: answers when all in-sync replicas have the record."""

import asyncio
import json
import os
import threading
from contextlib import asynccontextmanager
from typing import Any

from confluent_kafka import Producer
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel

TOPIC = os.environ["TOPIC"]
producer = Producer({"bootstrap.servers": os.environ["BOOTSTRAP"], "acks": "all", "linger.ms": 1})
ended = threading.Event()


class Record(BaseModel):
    project: str
    value: Any

    def payload(self) -> bytes:
        value = self.value if isinstance(self.value, dict) else {"value": self.value}
        return json.dumps(
            {**value, "project": self.project}, separators=(",", ":"), ensure_ascii=False
        ).encode()


def poll() -> None:
    while not ended.is_set():
        producer.poll(0.1)


@asynccontextmanager
async def lifespan(_: FastAPI):
    thread = threading.Thread(target=poll)
    thread.start()
    yield
    ended.set()
    thread.join()
    producer.flush(5)


app = FastAPI(lifespan=lifespan)


async def deliver(records: list[Record]) -> JSONResponse:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    errors = []
    waiting = len(records)

    def on_delivery(error, _message):
        nonlocal waiting
        waiting -= 1
        if error:
            errors.append(str(error))
        if waiting == 0:
            loop.call_soon_threadsafe(done.set_result, None)

    for record in records:
        producer.produce(TOPIC, record.payload(), on_delivery=on_delivery)
    await done
    if errors:
        return JSONResponse({"ok": False, "error": errors[0]}, 503)
    return JSONResponse({"ok": True, "count": len(records)}, 202)


@app.get("/health")
async def health():
    return PlainTextResponse("ok")


@app.post("/logs")
async def one(record: Record):
    return await deliver([record])


@app.post("/produce/batch")
async def many(records: list[Record]):
    return await deliver(records)
