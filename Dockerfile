FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY stream_monitor stream_monitor
RUN pip install --no-cache-dir . && useradd --system monitor
USER monitor
ENTRYPOINT ["stream-monitor"]
CMD ["run", "--config", "/etc/stream-monitor/monitor.toml"]
