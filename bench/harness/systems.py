"""The systems under test: how each is started. All take the same bodies on the same paths."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from .build import Tools

# what differs from the defaults of kafka-inlet: where it listens, a quiet log, an end without a pause, and no
# compression, which the others do not do either, and which a load of one and the same record would flatter
SERVICE = {
    "HOST": "127.0.0.1",
    "LOG_LEVEL": "warn",
    "SHUTDOWN_DELAY_MS": "0",
    "KAFKA_COMPRESSION": "none",
}


# the spool has room for what is stored in one measurement
DURABLE = {"DELIVERY": "durable", "INSTANCE_ID": "bench", "SPOOL_MAX_BYTES": "4GiB"}


@dataclass(frozen=True)
class Start:
    command: list
    environment: dict
    folder: Path | None = None


def start_of(
    system: str, tools: Tools, port: int, bootstrap: str, topic: str, folder: Path
) -> Start | None:
    """None where the system is not installed. What it keeps on disk is below the folder."""
    if system.startswith("kafka-inlet"):
        own = {"PORT": str(port), "KAFKA_BROKERS": bootstrap, "LOG_TOPIC": topic}
        if system.endswith("without headers"):
            own["RECORD_HEADERS"] = "none"
        if system.endswith("durable"):
            own |= {**DURABLE, "SPOOL_DIR": str(empty(folder / "spool"))}
        return Start([tools.service], {**SERVICE, **own})
    if system == "bare":
        return Start([tools.program("bare"), "--port", port], {})
    if system == "naive":
        return Start([tools.program("naive"), "--port", port, "--bootstrap", bootstrap, "--topic", topic], {})
    settings = {"PORT": str(port), "BOOTSTRAP": bootstrap, "TOPIC": topic}
    if system == "express":
        quiet = {"NODE_ENV": "production", "KAFKAJS_NO_PARTITIONER_WARNING": "1"}
        return tools.express and Start(["node", "server.js"], {**settings, **quiet}, tools.express)
    if system == "fastapi":
        uvicorn = ["-m", "uvicorn", "server:app", "--host", "127.0.0.1", "--port", port]
        quiet = ["--log-level", "warning", "--no-access-log"]
        return tools.fastapi and Start(
            [tools.fastapi / "venv/bin/python", *uvicorn, *quiet], settings, tools.fastapi
        )
    if system == "benthos":
        return tools.benthos and Start(["./benthos", "-c", "config.yaml"], settings, tools.benthos)
    raise ValueError(system)


def empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def writes_to_kafka(system: str) -> bool:
    return system != "bare"
