FROM python:3.13-slim AS build
# What the sinks, sources and formats need that have packages of their own; leave out what you do not use.
ARG EXTRAS="email,extract,nats,objectstore,otel,parquet,postgres,redis,warc"
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY fetcher fetcher
RUN python -m venv /opt/fetcher \
    && /opt/fetcher/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[${EXTRAS}]" \
    && /opt/fetcher/bin/python -m compileall -q /opt/fetcher/lib

FROM python:3.13-slim
# /state is the one folder that is written to, so that the root file system can be read-only.
RUN useradd --uid 10001 --no-create-home --home-dir /state fetcher \
    && install -d -o 10001 -g 10001 /state /state/files
COPY --from=build /opt/fetcher /opt/fetcher
COPY config/container/service.yaml /etc/fetcher/service.yaml
ENV PATH="/opt/fetcher/bin:$PATH" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TMPDIR=/state
WORKDIR /state
VOLUME /state
USER 10001
EXPOSE 8080
# In exec form, so that SIGTERM reaches fetcher itself, which then drains.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
ENTRYPOINT ["fetcher"]
CMD ["serve", "/etc/fetcher/service.yaml"]
