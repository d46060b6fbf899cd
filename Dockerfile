# The wheel, with the core compiled: here is a C compiler.
FROM python:3.11 AS build
WORKDIR /app
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY schemas schemas
COPY stream_monitor stream_monitor
RUN HATCH_BUILD_HOOKS_ENABLE=1 pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.11-slim
COPY --from=build /wheel /wheel
RUN pip install --no-cache-dir /wheel/*.whl && useradd --system monitor
USER monitor
ENTRYPOINT ["stream-monitor"]
CMD ["run", "--config", "/etc/stream-monitor/monitor.toml"]
