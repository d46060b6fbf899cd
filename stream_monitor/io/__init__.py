"""The edges: Kafka, Redis, files and HTTP. They import the core's events; the core never imports them."""
