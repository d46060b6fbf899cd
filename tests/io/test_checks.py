"""What the outside has to be like is said in words, before anything is begun."""

from __future__ import annotations

import pytest

from stream_monitor.config import parse
from stream_monitor.errors import ConfigurationError
from stream_monitor.io import checks


@pytest.mark.parametrize(
    ("table", "name", "value", "said"),
    [
        ("properties", "sasl.mechanismus", "PLAIN", 'No such configuration property: "sasl.mechanismus"'),
        ("properties", "message.max.bytes", "many", 'Invalid value for configuration property "message.max.bytes"'),
        ("consumer", "session.timeout.ms", "soon", 'Invalid value for configuration property "session.timeout.ms"'),
        ("producer", "compression.type", "zip", 'Invalid value "zip" for configuration property'),
    ],
)
def test_a_property_that_the_client_does_not_take_is_named_with_its_table(table: str, name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        checks.properties(parse({"kafka": {"bootstrap_servers": "127.0.0.1:1", table: {name: value}}}))
    assert refused.value.problems[0].startswith(f"kafka.{table}: {said}")


def test_properties_that_the_client_takes_need_no_broker() -> None:
    own = {"properties": {"security.protocol": "SSL"}, "consumer": {"session.timeout.ms": 9_000}, "producer": {"linger.ms": 5}}
    checks.properties(parse({"kafka": {"bootstrap_servers": "127.0.0.1:1", **own}}))
