"""The script in Redis does what `core.joining.Fold` defines: same answers, same counters, for any log and any order of calls."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import redis

from stream_monitor.config import RedisConfig
from stream_monitor.core.codec import FEEDBACK, Accepted, Codec, read_head
from stream_monitor.core.joining import Applied, Behind, Call, Fold
from stream_monitor.core.records import SPAN, Record, pieces
from stream_monitor.core.settings import EventSettings, JoinSettings
from stream_monitor.io.redis import SCRIPT, RedisStore, UnansweredError, connect
from tests.support.redis import Migration
from tests.support.servers import RedisServer, start_redis_cluster

SETTINGS = JoinSettings(window_ms=1000, slack_ms=300, slot_ms=50, ttl_ms=1_000_000)
CODEC = Codec(EventSettings())
KEEPING = Codec(EventSettings(), slices=("country",))
LABEL: bytes = CODEC.feedback(b'{"request_id":"r","timestamp":1,"label":1,"model":"m","model_version":"1"}', 0)[1]  # type: ignore[assignment]
EVENT: Any = CODEC.feedback(b'{"request_id":"r","timestamp":1,"label":1}', 0)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def store(client: Any, namespace: str) -> Iterator[RedisStore]:
    store = open_store(client, namespace)
    yield store
    store.close()


def open_store(client: Any, prefix: str, settings: JoinSettings = SETTINGS) -> RedisStore:
    def fail(trouble: str) -> None:
        raise AssertionError(trouble)

    return RedisStore(client, prefix, settings, lambda seconds: False, fail)


def call(store: RedisStore, call: Call) -> Applied | Behind:
    [answer] = store.submit([call]).result()
    return answer


def random_log(rng: random.Random, length: int, framed: bool = False) -> list[Record]:
    """`framed`: a record of the journal carries some events, with one offset and one time."""
    records: list[Record] = []
    time, offset, number, skew = 10**12, rng.choice([0, 7]), 0, 0
    for _ in range(length):
        if framed and records and rng.random() < 0.7:
            number += 1
        else:
            time += rng.choice([0, 1, 10, 50, 400])
            skew = rng.choice([0, 0, 30])
            offset += rng.choice([1, 1, 1, 3])  # transaction markers leave holes
            number = 0
        name, at = f"r{rng.randrange(30)}", rng.randrange(10**6)
        if rng.random() < 0.5:
            event: dict[str, Any] = {"model": "é" * rng.choice([1, 150]), "model_version": "1", "prediction": 1}
            codec, event["slices"] = rng.choice([CODEC, KEEPING]), {"country": "é" * rng.choice([1, 300])}
            result = codec.prediction(orjson.dumps({"request_id": name, "timestamp": at, **event}), 0)
        else:
            event = {"request_id": name, "timestamp": at, "label": rng.choice([1, 2])}
            if rng.random() < 0.6:
                event |= {"model": rng.choice(["m", "é" * 150]), "model_version": rng.choice("12"), "slices": {"country": rng.choice("ab")}}
            result = rng.choice([CODEC, KEEPING]).feedback(orjson.dumps(event), 0)
        assert isinstance(result, Accepted)
        key, value = result
        owned = value[1] == FEEDBACK and read_head(value).owner
        version = value[:1] if owned else rng.choice([b"\x01", value[:1]])  # what was written before is in the journal and in Redis
        records.append(Record(offset, time - skew, key, version + value[1:], number))
    return records


def test_entries_are_written_at_once_where_the_server_can(store: RedisStore, client: Any) -> None:
    if not client.execute_command("COMMAND", "INFO", "msetex")["msetex"]:
        return  # an older one; how that is written to is below
    before = client.info("commandstats")
    call(store, Call(0, 0, 100, 0, [Record(i, 10**12, *EVENT) for i in range(100)], "e1"))
    stats = client.info("commandstats")
    assert stats["cmdstat_msetex"]["failed_calls"] == 0
    assert stats["cmdstat_msetex"]["calls"] == before.get("cmdstat_msetex", {"calls": 0})["calls"] + 1
    assert stats.get("cmdstat_set") == before.get("cmdstat_set")


def accounting(store: RedisStore) -> dict[str, int]:
    state = {"applied", "trim", "clock", "origin", "waiting_predictions", "waiting_feedback"}
    return {name: n for name, n in store.counters(0).items() if name not in state}


def labels(client: Any, namespace: str) -> dict[tuple[int, bytes], tuple[int, int]]:
    """What lies in Redis of labels that are not told, as `Fold.labels`."""
    found = {}
    for key in client.keys(f"{{{namespace}:0}}:labels:*"):
        fields = {field: int(n) for field, n in client.hgetall(key).items()}
        for owner in (field for field in fields if field[:1] != b"+"):
            found[int(key.rpartition(b":")[2]), owner] = fields[owner], fields.get(b"+" + owner, 0)
    return found


WRITING = {"at once": (b"", b""), "one by one": (b"not MSETEX", b"true"), "refused": (b"pcall('MSETEX'", b"pcall('MSETEY'")}


@pytest.fixture(params=WRITING)
def writing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the script writes entries: as a server can that has MSETEX, as an older one can, and where it is left out."""
    script = SCRIPT.replace(*WRITING[request.param])
    assert script != SCRIPT or request.param == "at once"
    monkeypatch.setattr("stream_monitor.io.redis.SCRIPT", script)


@pytest.mark.usefixtures("writing")
@pytest.mark.parametrize("seed", range(60))
def test_the_script_is_the_fold(store: RedisStore, client: Any, namespace: str, seed: int) -> None:
    rng = random.Random(seed)
    records, fold = random_log(rng, 200, framed=seed % 2 == 1), Fold(SETTINGS)
    i, start, committed, told = 0, 0, 0, 0
    while i < len(records):
        part = next(iter(pieces(records[i:], n))) if (n := rng.randrange(20)) else []
        n, end = len(part), part[-1].offset + 1 if part else start
        request = Call(0, start, end, committed, part, "e1")
        answer = call(store, request)
        assert answer == fold.apply(request)
        assert isinstance(answer, Applied)
        told += len(answer.cohorts)
        if rng.random() < 0.1:  # read again
            start = records[max(0, i - 10)].offset
            i = next(j for j, record in enumerate(records) if record.offset == start)
        else:
            i, start = i + n, end
        if rng.random() < 0.5:
            committed = max(committed, min(start, fold.at or 0))
    found = store.counters(0)
    assert accounting(store) == {name: n for name, n in fold.counters.items() if n}
    assert (found["waiting_predictions"], found["waiting_feedback"]) == fold.waiting()
    assert (found["applied"], found["trim"], found["clock"]) == (SPAN * (fold.at or 0), SPAN * fold.trim, fold.clock)
    assert labels(client, namespace) == fold.labels
    assert told, "cohorts are among the answers"


@pytest.mark.usefixtures("writing")
def test_the_script_takes_more_records_than_one_command_takes_keys(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_monitor.io.redis._PIECE", 1_000_000)
    made, fold, rng = (
        [CODEC.feedback(b'{"request_id":"r%d","timestamp":1,"label":1}' % i, 0) for i in range(7_000)],
        Fold(SETTINGS),
        random.Random(1),
    )
    for start in (0, 10_001):
        records = [Record(start + i, 10**12, *rng.choice(made)) for i in range(10_001)]
        request = Call(0, start, start + 10_001, 0, records, "e1")
        assert call(store, request) == fold.apply(request)
    assert accounting(store) == fold.counters


@pytest.mark.usefixtures("writing")
def test_a_call_of_many_records_is_made_in_pieces_that_do_what_the_whole_does(store: RedisStore) -> None:
    records, fold = random_log(random.Random(1), 4_321, framed=True), Fold(SETTINGS)
    request = Call(0, 0, records[-1].offset + 1, 0, records, "e1")
    assert call(store, request) == fold.apply(request)
    assert accounting(store) == fold.counters


def test_calls_of_many_buckets_are_answered_in_the_order_of_the_calls_and_each_bucket_in_turn(store: RedisStore) -> None:
    rng = random.Random(4)
    folds = [Fold(SETTINGS) for _ in range(9)]
    logs = [random_log(rng, 300) for _ in folds]
    requests = []
    for i in range(0, 300, 50):
        for bucket in rng.sample(range(len(folds)), len(folds)):
            part = logs[bucket][i : i + 50]
            start = logs[bucket][i - 1].offset + 1 if i else 0
            requests.append(Call(bucket, start, part[-1].offset + 1, 0, part, "" if i else "e1"))
    submitted = [store.submit(requests[i : i + 12]) for i in range(0, len(requests), 12)]  # a bucket may come twice in one
    found = [answer for future in submitted for answer in future.result()]
    assert found == [folds[request.bucket].apply(request) for request in requests]
    assert store.submit([]).result() == []


def test_a_call_that_fails_fails_all_that_were_submitted_with_it(store: RedisStore, client: Any, namespace: str) -> None:
    client.set(f"{{{namespace}:2}}", "no hash")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        store.submit([Call(bucket, 0, 1, 0, [], "e1") for bucket in range(4)]).result()


def test_a_store_without_state_or_with_a_gap_refuses_and_changes_nothing(store: RedisStore, client: Any) -> None:
    records = random_log(random.Random(1), 10)
    assert call(store, Call(0, 5, 6, 5, records)) == Behind(None)
    assert store.status(0).at is None
    call(store, Call(0, 5, 8, 5, [], "e1"))
    before = store.counters(0)
    assert call(store, Call(0, 9, 99, 9, records)) == Behind(8)
    assert store.counters(0) == before


def test_a_rebuild_begins_from_nothing_although_the_old_entries_still_lie_there(store: RedisStore) -> None:
    records = random_log(random.Random(2), 100)
    request = Call(0, 0, records[-1].offset + 1, 0, records, "e1")
    first = call(store, request)
    store.forget(0)
    assert store.status(0).at is None
    again = call(store, request._replace(epoch="e2"))
    assert isinstance(first, Applied)
    assert again == first._replace(epoch="e2"), "a leftover would have turned a record into a duplicate, that is, into a loss"


def test_a_rebuild_counts_no_label_that_was_counted_before_it(store: RedisStore, client: Any, namespace: str) -> None:
    for epoch in ("e1", "e1", "e2"):
        records, fold = random_log(random.Random(2), 100), Fold(SETTINGS)
        request = Call(0, 0, records[-1].offset + 1, 0, records, epoch)
        assert call(store, request) == fold.apply(request)
        assert labels(client, namespace) == fold.labels
        assert fold.labels
        store.forget(0)
    call(store, Call(0, 500, 501, 0, [], "e3"))
    assert not labels(client, namespace), "those of a slot that the log does not come by again"


def test_of_the_labels_of_many_owners_only_those_of_slots_that_are_over_are_read(store: RedisStore, client: Any) -> None:
    records = [Record(i, 10**12 + 100 * i, b"r%d" % i, LABEL) for i in range(12)]  # a slot each; the horizon is 26 slots away
    call(store, Call(0, 0, 12, 0, records, "e1"))
    client.config_resetstat()
    answer = call(store, Call(0, 12, 13, 0, [Record(12, 10**12 + 1_550, b"x", EVENT[1])]))
    assert isinstance(answer, Applied)
    assert [one.since - 10**12 for one in answer.cohorts[12 * SPAN]] == [0, 100, 200]
    assert client.info("commandstats")["cmdstat_hgetall"]["calls"] == 1 + 3, "what waits, and the three slots"


def test_a_label_that_names_nobody_costs_no_command(store: RedisStore, client: Any) -> None:
    records = [Record(i, 10**12, b"r%d" % i, EVENT[1]) for i in range(100)]
    call(store, Call(0, 0, 1, 0, records[:1], "e1"))
    client.config_resetstat()
    call(store, Call(0, 1, 100, 0, records[1:]))
    assert {name for name in client.info("commandstats") if "exists" in name or "hgetall" in name} == set()


def test_a_script_that_the_server_has_forgotten_is_loaded_again(store: RedisStore, client: Any) -> None:
    call(store, Call(0, 0, 1, 0, [], "e1"))
    client.script_flush()
    assert call(store, Call(0, 1, 2, 0, [])) == Applied(2, 0, {}, "e1")


def test_the_outbox_keeps_what_is_not_committed_and_no_more(store: RedisStore, client: Any, namespace: str) -> None:
    records = random_log(random.Random(3), 300)
    position = 0
    for i in range(0, 300, 30):
        part = records[i : i + 30]
        call(store, Call(0, position, part[-1].offset + 1, max(0, position - 40), part, "e1"))
        position = part[-1].offset + 1
    outbox = f"{{{namespace}:0}}:outbox"
    assert 1 <= client.xlen(outbox) < 5
    call(store, Call(0, position, position, position, []))
    assert client.xlen(outbox) == 0


def test_a_rebuild_keeps_no_answers_below_the_committed_offset(store: RedisStore, client: Any, namespace: str) -> None:
    records, position = random_log(random.Random(3), 300), 0
    for i in range(0, 300, 30):
        part = records[i : i + 30]
        call(store, Call(0, position, part[-1].offset + 1, records[290].offset, part, "e1"))
        position = part[-1].offset + 1
    assert client.xlen(f"{{{namespace}:0}}:outbox") == 1


def test_a_rebuild_of_which_a_call_is_repeated_after_the_bucket_was_dropped_begins_from_nothing(store: RedisStore) -> None:
    records = random_log(random.Random(2), 100)
    request = Call(0, 0, records[-1].offset + 1, 0, records, "e1")
    first = call(store, request)
    store.forget(0)
    assert call(store, request) == first


def test_entries_die_by_ttl_so_that_memory_is_freed_without_anyone_asking(client: Any, namespace: str) -> None:
    store = open_store(client, namespace, JoinSettings(window_ms=1, slack_ms=0, slot_ms=1, ttl_ms=60_000))
    [record] = random_log(random.Random(4), 1)
    call(store, Call(0, 0, record.offset + 1, 0, [record], "e1"))
    [entry] = client.keys(f"{{{namespace}:0}}:e1:*")
    assert 0 < client.pttl(entry) <= 60_000
    store.close()


def test_a_request_id_may_be_any_bytes_of_utf8(store: RedisStore) -> None:
    fold = Fold(SETTINGS)
    records = []
    for offset, name in enumerate(["{x}", ":outbox", "\x00", "é" * 100, "a b\r\n", "*"]):
        result = CODEC.feedback(orjson.dumps({"request_id": name, "timestamp": 1, "label": 1}), 0)
        assert isinstance(result, Accepted)
        records.append(Record(offset, 1, *result))
    request = Call(0, 0, len(records), 0, records, "e1")
    assert call(store, request) == fold.apply(request)
    assert accounting(store) == fold.counters


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    servers = start_redis_cluster(3)
    yield servers
    for server in servers:
        server.close()


def test_on_a_cluster_every_bucket_is_the_fold_although_its_nodes_forget_the_script(cluster: list[RedisServer], namespace: str) -> None:
    client = connect(RedisConfig(url=cluster[0].url, mode="cluster"))
    store = open_store(client, namespace)
    buckets = 8
    assert len({client.get_node_from_key(f"{{{namespace}:{b}}}").name for b in range(buckets)}) > 1, "on more than one node"
    logs = {b: random_log(random.Random(b), 1_200) for b in range(buckets)}
    folds = {b: Fold(SETTINGS) for b in range(buckets)}
    for start, end in ((0, 1_000), (1_000, 1_200)):  # more than one piece, then less than one
        calls = [
            Call(b, log[start - 1].offset + 1 if start else 0, log[end - 1].offset + 1, 0, log[start:end], "" if start else "e1")
            for b, log in logs.items()
        ]
        assert store.submit(calls).result() == [folds[call.bucket].apply(call) for call in calls]
        client.script_flush()
    store.forget(3)
    assert store.status(3).at is None
    store.close()


@pytest.mark.parametrize("moved", ["bucket", "slots", "outbox", "entry", "labels to write", "labels to read"])
def test_while_a_slot_moves_a_call_is_refused_whole_whatever_has_moved_already(
    cluster: list[RedisServer], namespace: str, moved: str
) -> None:
    client = connect(RedisConfig(url=cluster[0].url, mode="cluster"))
    troubles: list[str] = []
    store = RedisStore(client, namespace, SETTINGS, lambda seconds: True, troubles.append)
    one, two = pair("one"), pair("two")
    log = [Record(0, 0, *one[0]), Record(1, 0, *two[0]), Record(2, 0, *two[1]), Record(3, 60, b"other", LABEL)]
    log.append(Record(4, 60, *one[1]) if moved != "labels to read" else Record(4, 1_400, *one[1]))
    fold = Fold(SETTINGS)
    first, second = Call(0, 0, 4, 0, log[:4], "e1"), Call(0, 4, 5, 4, log[4:])
    assert call(store, first) == fold.apply(first)
    bucket = f"{{{namespace}:0}}"
    key = {"bucket": bucket, "slots": f"{bucket}:slots", "outbox": f"{bucket}:outbox", "entry": f"{bucket}:e1:one"}
    key |= {"labels to write": f"{bucket}:labels:1", "labels to read": f"{bucket}:labels:0"}
    with Migration(cluster, bucket) as migration:
        migration.move([key[moved].encode()])
        with pytest.raises(UnansweredError):
            call(store, second)
        assert troubles
        migration.finish()
    assert call(store, second) == fold.apply(second)
    assert accounting(store) == {name: n for name, n in fold.counters.items() if n}
    store.close()


def pair(name: str) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    event = {"request_id": name, "timestamp": 1}
    prediction = CODEC.prediction(orjson.dumps({**event, "model": "m", "model_version": "1", "prediction": 1}), 0)
    feedback = CODEC.feedback(orjson.dumps({**event, "label": 1, "model": "m", "model_version": "1"}), 0)
    assert isinstance(prediction, Accepted)
    assert isinstance(feedback, Accepted)
    return tuple(prediction), tuple(feedback)  # type: ignore[return-value]
