"""A deterministic simulator: production code against a Kafka, a Redis and a clock that one seed makes misbehave.

    python -m tests.simulation --seeds 100000 --jobs 2   many seeds
    python -m tests.simulation --seed 17 --trace         one of them again, step by step; of those that fail, the first is told so anyway

Real are `live.Worker`, the stages, `io.kafka`'s source and sink, and `core.joining.Fold` as the store's algorithm. Simulated are
the brokers behind the Kafka client (`broker`, `group`, `clients`), the masters, replicas and lost packets of Redis (`redis`) and
time (`scheduler`). Whatever calls the outside passes a hook; there the seed decides who goes on, who sleeps, and who dies.
`world` builds a run, `check` says what must hold at its end (the join's part by `tests.support.plain`, which shares nothing with it),
`mutants` are broken programs that the check has to catch.
"""
