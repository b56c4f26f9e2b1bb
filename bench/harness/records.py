"""The records that are sent: what a client posts, and what then is in Kafka."""

MESSAGE = (
    '{"level":"info","service":"checkout","ts":"2026-11-21T09:30:00.123Z","trace_id":"0af7651916cd43dd8448eb211c80319c",'
    '"msg":"order 20481 of customer 7731 was paid","took_ms":41}'
)
PROJECT = ',"project":"shop"}'
TOPIC = "@TOPIC@"
TURN = "@TURN@"
ITEM = '{"id":%06d,"text":"a part of a longer document"}'


def value(size: int | None) -> str:
    """A JSON object that is `size` bytes in Kafka; None: the usual message of about 200."""
    if size is None:
        return MESSAGE
    frame = '{"items":[%s],"note":"%s"}'
    room = size - len(frame % ("", "")) - len(PROJECT) + 1
    count = max(0, room // (len(ITEM % 0) + 1))
    items = ",".join(ITEM % (100_000 + index) for index in range(count))
    return frame % (items, "x" * (room - len(items)))


def landed(size: int | None) -> str:
    """The record's value as kafka-inlet writes it: the posted one with the project as its last member."""
    return value(size)[:-1] + PROJECT


def envelope(size: int | None = None, topic: str | None = None, key: str | None = None) -> str:
    named = f'"topic":"{topic}",' if topic else ""
    keyed = f'"key":"{key}",' if key else ""
    return f'{{{named}{keyed}"project":"shop","value":{value(size)}}}'


def key(index: int) -> str:
    """Another one in each turn of the load program."""
    return f"customer-{TURN}-{index:04}"


def batch(topic: str, count: int, ndjson: bool, keyed: bool = False) -> str:
    records = [envelope(topic=topic, key=key(index) if keyed else None) for index in range(count)]
    return "\n".join(records) + "\n" if ndjson else f"[{','.join(records)}]"
