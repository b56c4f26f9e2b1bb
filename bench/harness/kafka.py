"""One real Apache Kafka (KRaft, one process), its topics, and a relay that adds a round-trip time."""

from contextlib import contextmanager
from pathlib import Path

from .build import Tools
from .process import Failed, Process, free_port, run, wait_for

START_LIMIT = 60
PARTITIONS = 3
CLUSTER_ID = "YmVuY2gta2Fma2EtaW5sZQ"


class Broker:
    """Listens twice: for clients beside it, and for those of the relay, who must be told the relay's port."""

    def __init__(self, tools: Tools, folder: Path):
        self.tools, self.folder = tools, folder
        self.port, self.far_port, self.relay_port = free_port(), free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.far_bootstrap = f"127.0.0.1:{self.relay_port}"
        self.topics: set[str] = set()
        folder.mkdir()
        properties = folder / "server.properties"
        properties.write_text(self.properties(free_port()))
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

    def properties(self, controller_port: int) -> str:
        return f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{self.port},FAR://127.0.0.1:{self.far_port},CONTROLLER://127.0.0.1:{controller_port}
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


def listening(port: int) -> bool:
    """Looks without connecting: a connection would be relayed."""
    wanted = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(fields[1] == wanted and fields[3] == "0A" for fields in map(str.split, lines))
