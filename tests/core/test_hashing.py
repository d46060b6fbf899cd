"""The stable hashes are pinned: a change here re-partitions journals and renames alerts."""

from stream_monitor.core.hashing import digest_of, label_digest, partition_of, scatter, unit_of


def test_the_hashes_have_not_changed_since_the_first_release() -> None:
    assert partition_of(b"r-000000000001", 12) == 6
    assert digest_of("credit", "v3", "country=DE", "error") == "a15da6a4d7be6cb91afd456d48565e94"
    assert label_digest("fraud").hex() == "3447b296cf90cc7c"
    assert unit_of(b"r-000000000001") == 1451087625030631700
    assert scatter(1) == 0xE220A8397B1DCDAF


def test_partitions_spread_evenly() -> None:
    counts = [0] * 8
    for i in range(80_000):
        counts[partition_of(b"request-%d" % i, 8)] += 1
    assert max(counts) < 1.1 * min(counts)


def test_the_parts_of_a_digest_do_not_run_together() -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc")


def test_labels_of_different_types_are_different_labels() -> None:
    assert len({label_digest(label) for label in (1, "1", True, 0, False, "true", 1.5)}) == 7


def test_a_number_is_one_label_however_it_is_written() -> None:
    assert label_digest(1) == label_digest(1.0)
    assert label_digest(-0.0) == label_digest(0)
