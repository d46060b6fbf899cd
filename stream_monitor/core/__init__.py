"""The pure core: values in, values out. Nothing here knows Kafka, Redis, files, logging or the wall clock."""
