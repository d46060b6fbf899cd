"""Incidents: the alerts of one model that have one cause, as far as their times can tell.

A change raises alerts side by side: the error, the recall of a class, a slice. An alert about a change since `first_seen`, noticed at
`detected_at`, covers the time between; an incident covers what its alerts cover. An alert joins the incident of its model that it
overlaps, or follows within `grace`: as long as the first alert took to be noticed, since a change point is told no better than that. Of
several it joins the one that began nearest to it. Otherwise it begins an incident of its own, which has the alert's id.

    alert        |-----| begins the incident
    another        |---------| joins it
    a third                        |--| joins it: within grace
    a fourth                                   |---| begins the next

An incident ends with the last of its alerts, so there are never more of them than alerts that fire. What came after it is another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stream_monitor.core.events import Alert


class Incident:
    """`begin`, `until`, `grace`: ms of event time. `firing`: ids of its alerts that have not ended. `alerts`: how many it ever had."""

    __slots__ = ("alerts", "begin", "firing", "grace", "id", "until")

    def __init__(self, id_: str, begin: int, until: int) -> None:
        self.id = id_
        self.begin = begin
        self.until = until
        self.grace = max(0, until - begin)
        self.firing: dict[str, None] = {}
        self.alerts = 0

    def add(self, alert: str, first_seen: int, detected_at: int) -> None:
        self.firing[alert] = None
        self.alerts += 1
        self.begin = min(self.begin, first_seen)
        self.until = max(self.until, detected_at)


class Incidents:
    """The open incidents of a partition.

    >>> incidents = Incidents()
    >>> incidents.join("credit", "a", first_seen=100, detected_at=160)
    'a'
    >>> incidents.join("credit", "b", first_seen=110, detected_at=300), incidents.join("other", "c", first_seen=110, detected_at=300)
    ('a', 'c')
    >>> incidents.join("credit", "d", first_seen=360, detected_at=370), incidents.join("credit", "e", first_seen=431, detected_at=440)
    ('a', 'e')
    """

    def __init__(self) -> None:
        self._open: dict[str, dict[str, Incident]] = {}  # by model and id

    def join(self, model: str, alert: str, first_seen: int, detected_at: int) -> str:
        """The incident that an alert which begins now belongs to."""
        known = self._open.setdefault(model, {})
        near = [one for one in known.values() if first_seen <= one.until + one.grace]
        if near:
            incident = min(near, key=lambda one: abs(one.begin - first_seen))
        else:
            incident = known[alert] = Incident(alert, first_seen, detected_at)
        incident.add(alert, first_seen, detected_at)
        return incident.id

    def leave(self, model: str, incident: str, alert: str) -> None:
        """An alert has ended; it need not be known."""
        known = self._open.get(model, {})
        found = known.get(incident)
        if found is None:
            return
        found.firing.pop(alert, None)
        if not found.firing:
            del known[incident]
            if not known:
                del self._open[model]

    def get(self, model: str, incident: str) -> Incident | None:
        """An incident that is open."""
        return self._open.get(model, {}).get(incident)

    def regroup(self, alerts: Iterable[Alert]) -> None:
        """Begins anew with these alerts, each in the incident that it names."""
        self._open.clear()
        for alert in sorted(alerts, key=lambda one: (one.detected_at, one.id)):
            known = self._open.setdefault(alert.model, {})
            if alert.incident not in known:
                known[alert.incident] = Incident(alert.incident, alert.first_seen, alert.detected_at)
            known[alert.incident].add(alert.id, alert.first_seen, alert.detected_at)

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def state(self) -> Any:
        """Plain data."""
        return [
            [model, one.id, one.begin, one.until, one.grace, one.alerts, list(one.firing)]
            for model, known in self._open.items()
            for one in known.values()
        ]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        for model, id_, begin, until, grace, alerts, firing in state:
            one = self._open.setdefault(model, {})[id_] = Incident(id_, begin, until)
            one.grace, one.alerts, one.firing = grace, alerts, dict.fromkeys(firing)
