"""A real Apache Kafka (KRaft, one process, or a second one for a while), its topics, and a relay that adds a round-trip time."""

import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

from .build import Tools
from .process import Failed, Process, free_port, run, wait_for

START_LIMIT = 60
PARTITIONS = 3
CLUSTER_ID = "YmVuY2gta2Fma2EtaW5sZQ"


class Broker:
    """Listens twice: for clients beside it, and for those of the relay, who must be told the relay's port."""

    def __init__(self, tools: Tools, folder: Path, node: int = 1, controller_port: int | None = None):
        """`controller_port`: that of the cluster which it joins; None: it is one by itself."""
        self.tools, self.folder, self.node = tools, folder, node
        self.roles = "broker" if controller_port else "broker,controller"
        self.controller_port = controller_port or free_port()
        self.port, self.far_port, self.relay_port = free_port(), free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.far_bootstrap = f"127.0.0.1:{self.relay_port}"
        self.topics: set[str] = set()
        folder.mkdir()
        properties = folder / "server.properties"
        properties.write_text(self.properties())
        run(
            [*self.java("kafka.tools.StorageTool"), "format", "-t", CLUSTER_ID, "-c", properties], START_LIMIT
        )
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()

    def start(self):
        command = [*self.java("kafka.Kafka"), self.folder / "server.properties"]
        self.process = Process(command, self.folder / "output", folder=self.folder)

    def java(self, main_class: str) -> list:
        log_level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return ["java", "-Xmx1g", log_level, "-cp", f"{self.tools.jars}/*", main_class]

    def properties(self) -> str:
        controller = f",CONTROLLER://127.0.0.1:{self.controller_port}" if "controller" in self.roles else ""
        return f"""process.roles={self.roles}
node.id={self.node}
controller.quorum.voters=1@127.0.0.1:{self.controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{self.port},FAR://127.0.0.1:{self.far_port}{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port},FAR://127.0.0.1:{self.relay_port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,FAR:PLAINTEXT
log.dirs={self.folder / "log"}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
# what has been counted may go: high watermarks stay
log.segment.bytes=134217728
log.retention.bytes=134217728
log.retention.check.interval.ms=2000
log.segment.delete.delay.ms=1000
log.index.size.max.bytes=1048576
"""

    def ensure_topic(self, topic: str, count: int = 1):
        """`count` topics, see `topic_names` of the programs. Many have one partition each, one has three."""
        if topic in self.topics:
            return
        self.process.ensure_alive()
        partitions = PARTITIONS if count == 1 else 1
        self.ask(topic, count, "create", "--partitions", partitions)
        self.topics.add(topic)

    def make_topic(self, topic: str, partitions: int, config: dict | None = None, count: int = 1):
        """`count` topics that this broker leads."""
        more = ["--partitions", partitions, "--broker", self.node, "--config", settings(config or {})]
        self.ask(topic, count, "create", *more)

    def has_joined(self) -> bool:
        """Whether it can be made to lead a topic."""
        self.process.ensure_alive()
        try:
            self.make_topic(f"joined-{time.monotonic_ns()}", 1)
        except Failed:
            return False
        return True

    def configure(self, topic: str, config: dict):
        """The topic's only settings from now on."""
        self.ask(topic, 1, "configure", "--config", settings(config))

    def values(self, topic: str) -> list[str]:
        """Of all records of a topic from which none was deleted."""
        return self.ask(topic, 1, "values").splitlines()

    @contextmanager
    def second(self):
        """Another broker of this cluster."""
        other = Broker(self.tools, self.folder.with_name(f"{self.folder.name}-2"), 2, self.controller_port)
        try:
            wait_for(other.has_joined, START_LIMIT, "the second broker", pause=0.5)
            yield other
        finally:
            other.process.popen.send_signal(signal.SIGCONT)
            other.process.stop()
            shutil.rmtree(other.folder, ignore_errors=True)

    def count(self, topic: str, count: int = 1) -> int:
        """The records that are in the topics or have been: the sum of their high watermarks."""
        return int(self.ask(topic, count, "count"))

    def settled_count(self, topic: str, count: int, expected: int) -> int:
        """The count once it no longer grows and has reached what is expected, or after ten seconds."""
        last = -1

        def settled():
            nonlocal last
            last, before = self.count(topic, count), last
            return last == before and last >= expected

        try:
            wait_for(settled, 10, "the count", pause=0.2)
        except Failed:
            pass
        return last

    def ask(self, topic: str, count: int, question: str, *more) -> str:
        topics = ["--topic", topic, "--topics", count]
        command = [
            self.tools.program("topics"),
            "--bootstrap",
            self.bootstrap,
            *topics,
            "--do",
            question,
            *more,
        ]
        return run(command, 2 * START_LIMIT)

    @contextmanager
    def at_distance(self, milliseconds: float | None):
        """The bootstrap address of this broker at that round-trip time; None: without a relay."""
        if milliseconds is None:
            yield self.bootstrap
            return
        ports = ["--listen", self.relay_port, "--to", self.far_port]
        command = [self.tools.program("delay"), *ports, "--milliseconds", milliseconds]
        with Process(command, self.folder / "delay.log") as relay:
            wait_for(lambda: listening(self.relay_port), 10, "the relay")
            relay.ensure_alive()
            yield self.far_bootstrap


def settings(config: dict) -> str:
    return ",".join(f"{name}={value}" for name, value in config.items())


def listening(port: int) -> bool:
    """Looks without connecting: a connection would be relayed."""
    wanted = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(fields[1] == wanted and fields[3] == "0A" for fields in map(str.split, lines))
