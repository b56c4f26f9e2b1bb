"""The load programs: wrk, as fast as answers come; `rate`, at a fixed rate; `raw`, which is its own load."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from . import records
from .build import Tools
from .process import Failed, Process, run

JSON, NDJSON = "application/json", "application/x-ndjson"

WRK_SCRIPT = """
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
local body = file:read("*a")
file:close()
local topics, turns = tonumber(os.getenv("BENCH_TOPICS")), tonumber(os.getenv("BENCH_TURNS"))
wrk.method = "POST"
wrk.body = body
wrk.headers["Content-Type"] = os.getenv("BENCH_CONTENT_TYPE")

-- a request function costs wrk more than one request that stays the same, so only many topics or keys have it
if turns > 1 then
  local requests, turn = {}, 0
  function init()
    for index = 0, turns - 1 do
      local name = os.getenv("BENCH_TOPIC") .. (topics > 1 and "-" .. index or "")
      local filled = body:gsub("@TOPIC@", name):gsub("@TURN@", index)
      requests[index] = wrk.format(nil, nil, nil, filled)
    end
  end
  function request()
    turn = (turn + 1) % turns
    return requests[turn]
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"answers":%d,"refused":%d,"broken":%d,"timeouts":%d,"seconds":%.6f,' ..
    '"p50_ms":%.3f,"p99_ms":%.3f,"p999_ms":%.3f,"max_ms":%.3f}\\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write, errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3, latency.max / 1e3))
end
"""


@dataclass(frozen=True)
class Wrk:
    """`connections` that each send the next request when the answer to the last has come."""

    connections: int
    records: int | None = None  # of a batch; None: one record, not in a batch
    ndjson: bool = False
    value_bytes: int | None = None
    topics: int = 1
    key_sets: int = 0  # bodies in turn with keys of their own; 0: no keys

    @property
    def turns(self) -> int:
        return max(self.topics, self.key_sets)


@dataclass(frozen=True)
class Rate:
    """`clients` that each send one record a second."""

    clients: int


@dataclass(frozen=True)
class Raw:
    """librdkafka alone, see `raw`."""

    mode: str
    outstanding: int = 0
    value_bytes: int | None = None
    topics: int = 1


@dataclass(frozen=True)
class OnlyStart:
    """No load: the system is started and left alone for a while."""


@dataclass(frozen=True)
class Spooling:
    """A load while Kafka is away."""

    load: Wrk


@dataclass(frozen=True)
class Replay:
    """At least `backlog` records are stored by `filling` while Kafka is away; then it comes back, and what is measured is
    the time until none of them is left, with `live` beside it."""

    backlog: int
    filling: Wrk
    live: Wrk | None = None


def records_a_request(load) -> int:
    return (load.records or 1) if isinstance(load, Wrk) else 1


def topics_of(load) -> int:
    return getattr(load, "topics", 1)


def request_of(load, topic: str) -> tuple[str, str, str]:
    """Path, content type and body."""
    if isinstance(load, Wrk) and load.records:
        return (
            "/produce/batch",
            NDJSON if load.ndjson else JSON,
            records.batch(topic, load.records, load.ndjson, load.key_sets > 0),
        )
    if getattr(load, "key_sets", 0):
        return "/produce", JSON, records.envelope(topic=topic, key=records.key(0))
    if topics_of(load) > 1:
        return "/produce", JSON, records.envelope(topic=records.TOPIC)
    return "/logs", JSON, records.envelope(getattr(load, "value_bytes", None))


def wrk(load: Wrk, port: int, topic: str, seconds: float, folder: Path) -> dict:
    command, environment = wrk_command(load, port, topic, seconds, folder)
    return wrk_result(run(command, seconds + 60, env={**os.environ, **environment}))


def wrk_command(load: Wrk, port: int, topic: str, seconds: float, folder: Path) -> tuple[list, dict]:
    path, content_type, body = request_of(load, topic)
    script, body_file = folder / "post.lua", folder / "body"
    script.write_text(WRK_SCRIPT)
    body_file.write_text(body)
    threads = min(max(1, (os.cpu_count() or 1) // 4), load.connections)
    size = [f"-t{threads}", f"-c{load.connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    environment = {
        "BENCH_BODY": str(body_file),
        "BENCH_CONTENT_TYPE": content_type,
        "BENCH_TOPIC": topic,
        "BENCH_TOPICS": str(load.topics),
        "BENCH_TURNS": str(load.turns),
    }
    return ["wrk", *size, "-s", script, f"http://127.0.0.1:{port}{path}"], environment


def wrk_result(output: str) -> dict:
    found = re.search(r"^RESULT (.*)$", output, re.MULTILINE)
    if not found:
        raise Failed(f"wrk gave no result:\n{output[-2000:]}")
    result = json.loads(found[1])
    result["accepted"] = result["answers"] - result["refused"]
    return result


def rate(tools: Tools, load: Rate, port: int, topic: str, seconds: float, folder: Path) -> dict:
    path, content_type, body = request_of(load, topic)
    body_file = folder / "body"
    body_file.write_text(body)
    whole_seconds = max(1, round(seconds))
    arguments = ["--port", port, "--path", path, "--content-type", content_type, "--body", body_file]
    size = ["--clients", load.clients, "--seconds", whole_seconds]
    result = json.loads(run([tools.program("rate"), *arguments, *size], seconds + 60))
    return {**result, "refused": result.pop("failed"), "broken": 0, "timeouts": 0, "seconds": whole_seconds}


def raw_process(tools: Tools, load: Raw, bootstrap: str, topic: str, seconds: float, folder: Path) -> Process:
    value = folder / "value"
    value.write_text(records.landed(load.value_bytes))
    what = ["--mode", load.mode, "--outstanding", load.outstanding, "--value", value, "--seconds", seconds]
    where = ["--bootstrap", bootstrap, "--topic", topic, "--topics", load.topics]
    return Process([tools.program("raw"), *where, *what], folder / "raw.log", piped=True)
