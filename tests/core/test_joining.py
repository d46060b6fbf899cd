"""The join as a specification: what each record finds, what is counted, what is published."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import orjson
import pytest

from stream_monitor.core.codec import HEAD, Accepted, Codec, read_head
from stream_monitor.core.joining import Applied, Behind, Call, Cohort, Fold, Verdict, emit, merge, split
from stream_monitor.core.records import SPAN, Record
from stream_monitor.core.settings import EventSettings, JoinSettings
from tests.support.plain import as_observation, plain_join

SETTINGS = JoinSettings(window_ms=1000, slack_ms=300, slot_ms=50, ttl_ms=10_000)
CODEC = Codec(EventSettings())
KEYS = ("country", 'ü"', "y")
KEEPING = Codec(EventSettings(), slices=KEYS)


def prediction(request_id: str, at: int = 100, codec: Codec = CODEC, **fields: Any) -> tuple[bytes, bytes]:
    event = {"request_id": request_id, "model": "m", "model_version": "1", "timestamp": at, "prediction": 1, **fields}
    return accepted(codec.prediction(orjson.dumps(event), 0))


def of_version_1(event: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """As it was written before: the head names the model alone."""
    key, value = event
    head, body = read_head(value), orjson.loads(value[read_head(value).body :])
    name = body.get("model", "").encode()
    return key, HEAD.pack(1, head.kind, head.time, head.digest, len(name)) + name + value[head.body :]


def feedback(request_id: str, label: Any = 1, at: int = 150, codec: Codec = CODEC, **fields: Any) -> tuple[bytes, bytes]:
    return accepted(codec.feedback(orjson.dumps({"request_id": request_id, "label": label, "timestamp": at, **fields}), 0))


OWNERS: list[dict[str, Any]] = [{"model": "m", "model_version": "1"}, {"model": "m", "model_version": "2"}]


def accepted(result: Any) -> tuple[bytes, bytes]:
    assert isinstance(result, Accepted), result
    return result


def log(*steps: tuple[int, tuple[bytes, bytes]]) -> list[Record]:
    """Records at offsets 0, 1, ...: each step is (append time, (key, value))."""
    return [Record(offset, time, *event) for offset, (time, event) in enumerate(steps)]


def fold(records: list[Record]) -> tuple[Fold, Applied]:
    state = Fold(SETTINGS)
    answer = state.apply(Call(0, 0, len(records), 0, records, "e1"))
    assert isinstance(answer, Applied)
    return state, answer


def verdicts(records: list[Record]) -> list[Verdict]:
    _, answer = fold(records)
    return [Verdict(answer.answers.get(record.position, (0, b""))[0]) for record in records]


def published(records: list[Record]) -> list[dict[str, Any]]:
    _, answer = fold(records)
    return [orjson.loads(value) for _, _, value in emit(records, answer, 0)]


NEW, JOINED, DUPLICATE, CONFLICT, LATE = Verdict
LABELS = (1, 1.0, "1", True)  # three classes


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([(0, prediction("a")), (5, feedback("a"))], [NEW, JOINED], id="feedback after prediction"),
        pytest.param([(0, feedback("a")), (5, prediction("a"))], [NEW, JOINED], id="feedback first"),
        pytest.param([(0, prediction("a")), (1, prediction("a"))], [NEW, DUPLICATE], id="prediction twice"),
        pytest.param([(0, feedback("a")), (1, feedback("a"))], [NEW, DUPLICATE], id="feedback twice before the prediction"),
        pytest.param([(0, feedback("a", 1)), (1, feedback("a", 2))], [NEW, CONFLICT], id="contradiction before the prediction"),
        pytest.param(
            [(0, prediction("a")), (1, feedback("a")), (2, feedback("a")), (3, prediction("a")), (4, feedback("a", 7))],
            [NEW, JOINED, DUPLICATE, DUPLICATE, CONFLICT],
            id="repeats after the join",
        ),
        pytest.param([(0, prediction("a")), (1000, feedback("a"))], [NEW, JOINED], id="at the edge of the window"),
        pytest.param([(0, prediction("a")), (1001, feedback("a"))], [NEW, LATE], id="after the window"),
        pytest.param([(0, feedback("a")), (1001, prediction("a"))], [NEW, LATE], id="prediction after the window"),
        pytest.param([(0, prediction("a")), (1300, feedback("a"))], [NEW, LATE], id="at the edge of the slack"),
        pytest.param([(0, prediction("a")), (1301, feedback("a"))], [NEW, NEW], id="forgotten after the slack"),
        pytest.param(
            [(0, prediction("a")), (900, prediction("b")), (10, feedback("a"))],
            [NEW, NEW, JOINED],
            id="the log's clock never goes back",
        ),
        pytest.param([(0, prediction("a")), (1, prediction("b")), (2, feedback("b"))], [NEW, NEW, JOINED], id="by request id"),
    ],
)
def test_what_a_record_finds(steps: list[tuple[int, tuple[bytes, bytes]]], expected: list[Verdict]) -> None:
    assert verdicts(log(*steps)) == expected


def test_an_outcome_carries_both_sides_as_they_came_and_the_label_delay_in_event_time() -> None:
    made = prediction("a", at=100, extra="x")
    first, second = published(log((0, made), (5, feedback("a", "no", at=175))))
    assert first == {"record": "prediction", "prediction": orjson.loads(made[1][read_head(made[1]).body :])}
    assert second["record"] == "outcome"
    assert second["label_delay_ms"] == 75
    assert second["prediction"]["extra"] == "x"
    assert second["feedback"] == {"request_id": "a", "label": "no", "timestamp": 175}


def test_a_prediction_that_completes_a_join_publishes_itself_and_then_the_outcome() -> None:
    records = published(log((0, feedback("a", at=90)), (5, prediction("a", at=100))))
    assert [record["record"] for record in records] == ["prediction", "outcome"]
    assert records[1]["label_delay_ms"] == -10


def test_late_and_conflicting_feedback_is_told_to_its_model() -> None:
    late = published(log((0, prediction("a")), (1001, feedback("a"))))
    assert late[1]["record"] == "feedback_issue"
    assert (late[1]["issue"], late[1]["model"], late[1]["feedback"]["label"]) == ("late", "m", 1)
    assert late[1]["prediction"]["request_id"] == "a"
    conflicting = published(log((0, prediction("a")), (1, feedback("a")), (2, feedback("a", 9))))
    assert (conflicting[2]["issue"], conflicting[2]["model"], conflicting[2]["feedback"]["label"]) == ("conflicting", "m", 9)


def test_a_contradiction_names_the_version_of_its_prediction_and_the_slices_where_they_are_kept() -> None:
    for codec, known in ((CODEC, {}), (KEEPING, {"slices": {"country": "DE"}})):
        made = prediction("a", codec=codec, slices={"country": "DE"})
        for steps in ((made, feedback("a")), (feedback("a"), made)):
            *_, told = published(log(*enumerate([*steps, feedback("a", 9)])))
            issue = {"record": "feedback_issue", "issue": "conflicting", "model": "m", "model_version": "1"}
            assert told == {**issue, **known, "prediction": None, "feedback": {"request_id": "a", "label": 9, "timestamp": 150}}


@pytest.mark.parametrize("model", ["m", "é", '["a","b"]'])
def test_what_was_written_in_version_1_of_the_head_is_still_joined_but_a_contradiction_names_only_its_model(model: str) -> None:
    before, now = [of_version_1(prediction("a", model=model))], [prediction("a", model=model)]
    for later in ([feedback("a"), feedback("a", 9)], [of_version_1(feedback("a")), of_version_1(feedback("a", 9))]):
        for steps in (before + later, [later[0], *before, later[1]]):
            *told, conflict = published(log(*enumerate(steps)))
            assert told == published(log(*enumerate(now + later)))[:2]
            assert (conflict["issue"], conflict["model"], "model_version" in conflict) == ("conflicting", model, False)


def test_every_record_has_the_model_for_its_key() -> None:
    steps = [prediction("a", model='é"'), feedback("a"), feedback("a", 9), of_version_1(prediction("b", model='é"')), feedback("b")]
    records = log(*enumerate(steps))
    _, answer = fold(records)
    assert [key for key, _, _ in emit(records, answer, 0)] == ['é"'.encode()] * 5


def test_duplicates_and_contradictions_without_a_model_publish_nothing() -> None:
    assert published(log((0, feedback("a", 1)), (1, feedback("a", 2)), (2, feedback("a", 1)))) == []


def test_a_contradiction_before_the_prediction_is_told_to_the_model_that_the_first_label_names() -> None:
    first, second = feedback("a", 1, codec=KEEPING, **OWNERS[0], slices={"country": "DE"}), feedback("a", 2, **OWNERS[1])
    [told] = published(log((0, first), (1, second)))
    issue = {"record": "feedback_issue", "issue": "conflicting", "model": "m", "model_version": "1", "slices": {"country": "DE"}}
    assert told == {**issue, "prediction": None, "feedback": {"request_id": "a", "label": 2, "timestamp": 150, **OWNERS[1]}}


@pytest.mark.parametrize("label_first", [False, True])
@pytest.mark.parametrize("met_at", [5, 1200])
def test_a_label_that_names_its_owner_meets_its_prediction_as_any_other(label_first: bool, met_at: int) -> None:
    """And what is kept of the two is whose the prediction is."""
    made, labelled = prediction("a", model="mine"), feedback("a", **OWNERS[1])
    steps = [labelled, made] if label_first else [made, labelled]
    first, second, conflict = published(log((0, steps[0]), (met_at, steps[1]), (met_at + 1, feedback("a", 9, **OWNERS[1]))))
    assert first["prediction"]["model"] == second["prediction"]["model"] == "mine"
    assert second["feedback"] == {"request_id": "a", "label": 1, "timestamp": 150, **OWNERS[1]}
    assert second.get("label_delay_ms", 50) == 50
    assert (conflict["issue"], conflict["model"], conflict["model_version"]) == ("conflicting", "mine", "1")


def cohorts(*steps: tuple[int, tuple[bytes, bytes]]) -> list[list[dict[str, Any]]]:
    """What each record tells of the labels that came in a slot."""
    records = log(*steps)
    _, answer = fold(records)
    told = [[orjson.loads(value) for _, _, value in emit([record], answer, 0)] for record in records]
    return [[one for one in ones if one["record"] == "feedback_cohort"] for ones in told]


def cohort(since: int, labels: int, orphans: int, **owner: Any) -> dict[str, Any]:
    return {"record": "feedback_cohort", **OWNERS[0], **owner, "since": since, "labels": labels, "orphans": orphans}


def test_a_cohort_tells_how_many_labels_came_in_a_slot_and_how_many_of_these_are_orphans() -> None:
    named = [(60 + i, feedback(f"r{i}", **OWNERS[0])) for i in range(6)]
    met = [(0, prediction("r0")), (400, prediction("r1")), (1300, prediction("r2"))]  # before the label, after it, and too late
    *before, last = cohorts(met[0], *named, *met[1:], (1399, prediction("x")), (1400, prediction("y")))
    assert before == [[]] * 10
    assert last == [cohort(50, 6, 3)]


def test_a_slot_is_over_at_the_very_record_that_moves_the_clock_window_and_slack_past_it_and_is_told_before_what_that_finds() -> None:
    steps = [(10, feedback("a", **OWNERS[0])), (1349, prediction("x")), (1350, prediction("y")), (1350, prediction("z"))]
    assert cohorts(*steps) == [[], [], [cohort(0, 1, 1)], []]
    assert [record["record"] for record in published(log(*steps))] == ["prediction", "feedback_cohort", "prediction", "prediction"]


def test_a_cohort_in_which_all_labels_met_their_predictions_is_told_too_since_a_share_needs_both() -> None:
    assert cohorts((0, prediction("a")), (1, feedback("a", **OWNERS[0])), (9_000, prediction("x")))[2] == [cohort(0, 1, 0)]


def test_labels_that_come_again_or_contradict_do_not_count_and_those_that_name_nobody_are_told_to_nobody() -> None:
    again = [(i, feedback("a", label, **OWNERS[0])) for i, label in enumerate((1, 1, 2))]
    assert cohorts(*again, (3, feedback("b")), (4, feedback("c", model="m")), (9_000, prediction("x")))[-1] == [cohort(0, 1, 1)]


def test_cohorts_are_told_in_the_order_of_their_slots_and_owners_with_the_slices_that_are_kept() -> None:
    names: list[dict[str, Any]] = [{**OWNERS[0], "slices": {"country": name}} for name in ("b", "a")]
    steps = [(at, feedback(f"{at}-{i}", codec=KEEPING, **of)) for at in (0, 50) for i, of in enumerate([OWNERS[1], *names, OWNERS[0]])]
    told = cohorts(*steps, (9_000, prediction("x")))[-1]
    assert told == [
        one
        for at in (0, 50)
        for one in [*(cohort(at, 1, 1, slices={"country": name}) for name in "ab"), cohort(at, 1, 1), cohort(at, 1, 1, **OWNERS[1])]
    ]


def test_a_cohort_is_told_by_its_owner_as_its_prediction_has_it_and_under_the_models_name() -> None:
    records = log((0, feedback("a", model='é"', model_version="1")), (9_000, prediction("x")))
    _, answer = fold(records)
    (key, record, value), _ = emit(records, answer, 0)
    assert (key, record, orjson.loads(value)["model"]) == ('é"'.encode(), b"feedback_cohort", 'é"')


def test_cohorts_are_repeated_until_they_are_committed_and_published_at_offsets_that_are_not() -> None:
    records = log((0, feedback("a", **OWNERS[0])), (9_000, prediction("x")), (9_001, prediction("y")))
    state, first = fold(records)
    assert first.cohorts == {SPAN: [(0, b'["m","1"]', 1, 1)]}
    assert state.apply(Call(0, 1, 3, 1, records[1:])) == first._replace(trim=1)
    assert [record for _, record, _ in emit(records, first, 2)] == [b"prediction"]
    later = state.apply(Call(0, 3, 3, 3, []))
    assert isinstance(later, Applied)
    assert (state.outbox, later.cohorts) == ([], {})


def test_nothing_is_published_below_the_committed_offset() -> None:
    records = log((0, prediction("a")), (5, feedback("a")), (6, prediction("b")))
    _, answer = fold(records)
    assert [record for _, record, _ in emit(records, answer, 1)] == [b"outcome", b"prediction"]


def test_a_store_without_state_or_with_a_gap_refuses_and_changes_nothing() -> None:
    state = Fold(SETTINGS)
    assert state.apply(Call(0, 5, 6, 5, [], "")) == Behind(None)
    state.apply(Call(0, 5, 8, 5, [], "e1"))
    assert state.apply(Call(0, 9, 10, 9, [Record(9, 0, *prediction("a"))])) == Behind(8)
    assert state.at == 8
    assert not state.entries


def test_an_offset_that_was_applied_is_answered_again_until_it_is_committed() -> None:
    records = log((0, prediction("a")), (5, feedback("a")))
    state, first = fold(records)
    again = state.apply(Call(0, 0, 2, 0, records))
    assert again == first
    state.apply(Call(0, 2, 2, 2, []))
    assert state.outbox == []
    assert state.trim == 2


def test_a_rebuild_keeps_no_answers_below_the_committed_offset() -> None:
    records = log(*[(i, event) for i in range(0, 40, 2) for event in (prediction(f"r{i}"), feedback(f"r{i}"))])
    state = Fold(SETTINGS)
    for offset in range(0, 40, 4):
        answer = state.apply(Call(0, offset, offset + 4, 38, records[offset : offset + 4], "e1"))
        assert isinstance(answer, Applied)
        assert set(answer.answers) == {SPAN * (offset + 1), SPAN * (offset + 3)}
    assert [end for end, _, _ in state.outbox] == [40]


def test_the_counters_add_up_to_what_was_read() -> None:
    rng = random.Random(1)
    steps, time = [], 0
    for _ in range(5_000):
        time += rng.choice([0, 1, 5, 60])
        name = f"r{rng.randrange(400)}"
        steps.append((time, prediction(name) if rng.random() < 0.5 else feedback(name, rng.choice([1, 2]))))
    state, _ = fold(log(*steps))
    n = Counter(state.counters)
    waiting_predictions, waiting_feedback = state.waiting()
    pairs = n["joined"] + n["late"]
    assert n["predictions"] + n["feedback"] == 5_000
    assert n["predictions"] == pairs + n["duplicate_predictions"] + n["expired"] + waiting_predictions
    assert n["feedback"] == pairs + n["duplicate_feedback"] + n["conflicting"] + n["orphan"] + waiting_feedback
    assert min(n.values()) > 0, f"the workload does not reach every counter: {n}"


@pytest.mark.parametrize("seed", range(30))
def test_the_state_is_a_function_of_the_log_however_it_is_cut_and_repeated(seed: int) -> None:
    rng = random.Random(seed)
    steps, time = [], 0
    for _ in range(300):
        time += rng.choice([0, 1, 30, 200])
        name = f"r{rng.randrange(25)}"
        of: dict[str, Any] = rng.choice([{}, *OWNERS])
        steps.append((time, prediction(name) if rng.random() < 0.5 else feedback(name, rng.choice([1, 2]), **of)))
    records = log(*steps)
    whole, answer = fold(records)
    expected = emit(records, answer, 0)

    pieces, position, committed, out = Fold(SETTINGS), 0, 0, []
    while committed < len(records):
        end = min(len(records), position + rng.randrange(1, 40))
        part = pieces.apply(Call(0, position, end, committed, records[position:end], "e1"))
        assert isinstance(part, Applied)
        if rng.random() < 0.4:
            position = committed  # a crash: what was not committed is read again
            continue
        position = end
        out += emit(records[committed:end], _all(pieces, records, committed, end), committed)
        committed = end
    assert out == expected
    assert pieces.entries == whole.entries
    assert pieces.counters == whole.counters
    assert pieces.waiting() == whole.waiting()
    assert pieces.labels == whole.labels
    assert any(record == b"feedback_cohort" for _, record, _ in out)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_published_and_counted_is_the_plain_join_of_the_journal(seed: int) -> None:
    rng, keeps = random.Random(seed), seed % 2 == 1
    records: list[Record] = []
    time = offset = 1_000
    for _ in range(1_000):
        time += rng.choice([0, 1, 30, 200, -40])
        offset += rng.choice([0, 1, 1, 3])  # several events a record, and holes where transactions ended
        number = records[-1].number + 1 if records and records[-1].offset == offset else 0
        name, at = rng.choice(["a", "é", '"'] + [f"r{i}" for i in range(25)]), rng.randrange(500)
        of = {"model": rng.choice(["m", 'é"\n']), "slices": rng.choice([None, {}, {"y": "1", "other": "z", 'ü"': "x"}])}
        codec = KEEPING if keeps else CODEC
        if rng.random() < 0.5:
            made = prediction(name, at, codec, **of)
        else:
            made = feedback(name, rng.choice(LABELS), at, codec, **rng.choice([{}, {**of, "model_version": rng.choice("12")}]))
        records.append(Record(offset, records[-1].time if number else time, *made, number))

    state = Fold(SETTINGS)
    answer = state.apply(Call(2, 0, offset + 1, 0, records, "e1"))
    assert isinstance(answer, Applied)
    expected = plain_join(records, replace(SETTINGS, label_slices=KEYS if keeps else ()), 2, 5)
    told = [as_observation(*one) for one in emit(records, answer, 0, 2, 5)]
    assert told == expected.observations()
    assert sum(one.kind == b"feedback_cohort" for one in told) > 50
    predictions, feedbacks = state.waiting()
    assert {**state.counters, "waiting_predictions": predictions, "waiting_feedback": feedbacks} == expected.counts()
    assert len(expected.counts()) == 11, f"the journal does not reach every counter: {expected.counts()}"


def _all(state: Fold, records: list[Record], start: int, end: int) -> Any:
    answer = state.apply(Call(0, start, end, start, records[start:end]))
    assert isinstance(answer, Applied)
    return answer


def test_a_call_is_split_where_offsets_end_and_only_its_first_piece_may_begin_a_rebuild() -> None:
    records = [Record(offset, 0, b"", b"", number) for offset, n in ((3, 3), (4, 1), (9, 2)) for number in range(n)]
    pieces = split(Call(0, 2, 12, 1, records, "e1"), 2)
    assert [(piece.start, piece.end, len(piece.records), piece.epoch) for piece in pieces] == [(2, 4, 3, "e1"), (4, 12, 3, "")]
    assert split(Call(0, 2, 12, 1, records, "e1"), 6) == [Call(0, 2, 12, 1, records, "e1")]


def test_the_answers_to_pieces_are_one_a_refusal_if_there_is_one_and_of_no_epoch_if_of_several() -> None:
    first, second = Applied(5, 1, {1: (1, b"a")}, "e1"), Applied(9, 2, {6: (2, b"")}, "e1")
    assert merge([first, second]) == Applied(9, 2, {1: (1, b"a"), 6: (2, b"")}, "e1")
    one, other = {1: [Cohort(0, b"a", 2, 1)]}, {6: [Cohort(0, b"b", 2, 1)]}
    both = merge([first._replace(cohorts=one), second._replace(cohorts=other)])
    assert both == Applied(9, 2, {1: (1, b"a"), 6: (2, b"")}, "e1", one | other)
    assert merge([first, Behind(3), second]) == Behind(3)
    assert merge([first, second._replace(epoch="e2"), second]) == Applied(9, 2, {1: (1, b"a"), 6: (2, b"")}, "")
